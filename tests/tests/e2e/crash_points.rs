//! Every named crash point is reached, and from each of them the platform comes back exact.

use std::collections::BTreeMap;
use std::time::Duration;

use stratus_seam::crash::POINTS;
use stratus_tests::{http, process::Stratus};

use crate::run::{LAG_AFTER_KILL, Run};

#[tokio::test(flavor = "multi_thread")]
async fn every_crash_point_is_survived() {
    let _turn = stratus_tests::turn().await;
    for point in POINTS {
        crash_at(point).await;
    }
}

async fn crash_at(point: &str) {
    let none = BTreeMap::new();
    let mut run = Run::start(7, &none, LAG_AFTER_KILL).await.unwrap();
    run.send(500, Duration::from_millis(300)).await.unwrap();
    run.kill().await.unwrap();

    // Armed from here on, so that the point is reached on a start that has something to recover.
    let armed = BTreeMap::from([("STRATUS_CRASH_AT", format!("{point}:1"))]);
    let mut crashed = false;
    match Stratus::up(&run.folder(), &armed).await {
        // It fell before the doors were open.
        Err(error) => {
            assert!(
                error.to_string().contains(&format!("crash point {point} reached")),
                "{point}: {error:#}"
            );
            crashed = true;
        }
        Ok(mut process) => {
            // Epochs go only once the leases of the readers that died with the first process have run out.
            for _ in 0..500 {
                run.clicks.append(10).unwrap();
                if point.starts_with("append:") {
                    // HTTP appends to partitions of its own; what it is not told of may or may not be there.
                    _ = http::append(&process.http, "clicks", b"not an event\n").await;
                }
                if let Ok(client) = process.connect().await {
                    tokio::spawn(async move {
                        client.batch_execute("REFRESH MATERIALIZED VIEW page_views").await
                    });
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                if process.ended().unwrap() {
                    let (status, log) = process.wait(Duration::from_secs(5)).await.unwrap();
                    assert!(!status.success());
                    assert!(log.contains(&format!("crash point {point} reached")), "{point}: {log}");
                    crashed = true;
                    break;
                }
            }
        }
    }
    assert!(crashed, "crash point {point} was not reached");
    if point.starts_with("append:") {
        run.clicks.bad += lines_of_http(&run);
    }
    run.up(&none).await.unwrap();
    run.complete_views().await.unwrap();
    run.send(500, Duration::from_millis(300)).await.unwrap();
    if point.starts_with("append:") {
        // The torn tail of a partition that the appender owns is cut off when it is opened again: only whole lines
        // are records.
        let address = run.process.as_ref().unwrap().http.clone();
        let reply = http::append(&address, "clicks", b"not an event either\n").await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.body);
        run.clicks.bad += 1;
    }
    let took = run.settle(Duration::from_secs(30)).await.unwrap();
    println!("{point}: exact {took:?} after the restart");
}

/// Whole lines in the partitions that the test itself does not write.
fn lines_of_http(run: &Run) -> u64 {
    let log = run.folder().join("data/logs/clicks");
    let mut lines = 0;
    for partition in 2.. {
        let Ok(text) = std::fs::read(log.join(format!("{partition}.jsonl"))) else { break };
        lines += text.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    lines
}
