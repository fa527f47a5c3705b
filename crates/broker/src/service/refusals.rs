//! Records of refusals that anybody can cause: so many a second of each event. The others are counted, and their number is
//! written.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use portreeve_model::{Due, RECORDS_SUMMED, Records};
use tokio::time::sleep;

use super::limits;

/// By event. There are as many as the code has names for.
#[derive(Default)]
pub(super) struct Refusals {
    by_event: RefCell<HashMap<&'static str, Rc<RefCell<Records>>>>,
}

impl Refusals {
    /// Lets a record of this event be written, or counts it.
    pub(super) fn note(&self, of: &'static str, write: impl FnOnce()) {
        let records = {
            let mut by_event = self.by_event.borrow_mut();
            let fresh = || Rc::new(RefCell::new(Records::new(limits::REFUSAL_RECORDS)));
            Rc::clone(by_event.entry(of).or_insert_with(fresh))
        };
        let due = records.borrow_mut().next(Instant::now());
        match due {
            Due::Now => write(),
            Due::Not => {}
            Due::Summed => {
                tokio::task::spawn_local(async move {
                    sleep(RECORDS_SUMMED).await;
                    let more = records.borrow_mut().take_left_out();
                    tracing::warn!(target: "audit", event = "not-logged", of, more, "so many more were not logged one by one");
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_of_each_event_are_written_and_the_others_counted() {
        let noted = async {
            let refusals = Refusals::default();
            let mut written = 0;
            for _ in 0..limits::REFUSAL_RECORDS + 5 {
                refusals.note("one", || written += 1);
            }
            assert_eq!(written, limits::REFUSAL_RECORDS);
            refusals.note("other", || written += 1);
            assert_eq!(written, limits::REFUSAL_RECORDS + 1, "another event has a count of its own");
            let of_one = Rc::clone(&refusals.by_event.borrow()["one"]);
            sleep(RECORDS_SUMMED * 2).await;
            assert_eq!(of_one.borrow_mut().take_left_out(), 0, "the number was taken, and written");
        };
        LocalSet::new().run_until(noted).await;
    }
}
