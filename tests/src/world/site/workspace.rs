//! What people start from the workspace, by its API.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::client::Client;

/// How long what Slurm does by itself may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A job that somebody started. It is cancelled by hand, or with the cluster.
#[derive(Debug, Clone)]
pub struct Started {
    client: Client,
    /// Its id in the history.
    pub id: String,
}

impl Started {
    /// Starts an application with these values.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn new(client: &Client, app: &str, values: Value) -> Self {
        Self::of(client, app, json!({ "values": values })).await
    }

    /// The same, with all that can be said.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn of(client: &Client, app: &str, start: Value) -> Self {
        let answer = client.api("POST", &format!("apps/{app}/jobs"), start).await;
        assert_eq!(answer.status, 201, "{app}: {}", answer.text());
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        Self { client: client.clone(), id }
    }

    /// Its address in the API.
    #[must_use]
    pub fn path(&self, what: &str) -> String {
        format!("jobs/{}{what}", self.id)
    }

    /// As it is now.
    ///
    /// # Panics
    /// When the workspace does not say.
    pub async fn now(&self) -> Value {
        let answer = self.client.api("GET", &self.path(""), Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Waits until it is so.
    ///
    /// # Panics
    /// When it is not within two minutes, or is over.
    pub async fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.until_in(PATIENCE, what, is).await
    }

    /// The same with another patience.
    ///
    /// # Panics
    /// When it is not so in time, or is over.
    pub async fn until_in(&self, patience: Duration, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let now = self.now().await;
            if is(&now) {
                return now;
            }
            let is_over = matches!(now["state"].as_str(), Some("ended" | "failed"));
            if is_over || started.elapsed() > patience {
                let (output, errors) = (self.output("output").await, self.output("errors").await);
                panic!("not {what}: {now:#}\n--- output\n{output}\n--- errors\n{errors}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until it is in this state.
    pub async fn until_state(&self, state: &str) -> Value {
        self.until(state, |now| now["state"] == state).await
    }

    /// What it wrote.
    pub async fn output(&self, stream: &str) -> String {
        let path = self.path(&format!("/output?stream={stream}"));
        self.client.api("GET", &path, Value::Null).await.text()
    }

    /// Asks for something to be done with it: the answer's status and text.
    pub async fn ask(&self, what: &str, body: Value) -> (u16, String) {
        let answer = self.client.api("POST", &self.path(&format!("/{what}")), body).await;
        (answer.status.as_u16(), answer.text())
    }
}
