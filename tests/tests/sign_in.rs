//! Signing in and out.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portreeve_tests::world::{App, Portal};

#[tokio::test]
async fn a_code_signs_in_once() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    let app = App::echo().await;
    for client in [client.clone(), client.http2()] {
        let answer = client.get(&app.path("/x")).await;
        answer.assert_status(200);
        println!("{:?}", answer.json());
    }
}
