//! The README's first command, and its negative control.

use std::process::Stdio;

use stratus_tests::process::binary;
use tokio::process::Command;

async fn demo(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary().unwrap());
    command.args(["demo", "--once", "--events", "30000", "--rate", "max"]).args(arguments);
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_count_of_the_demo_is_exact() {
    let _turn = stratus_tests::turn().await;
    let (code, said) = demo(&["--bad-percent", "1"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("0 differ"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_lost_one_event_says_so() {
    let _turn = stratus_tests::turn().await;
    let (code, said) = demo(&["--lose-one"]).await;
    assert_eq!(code, Some(1), "{said}");
}
