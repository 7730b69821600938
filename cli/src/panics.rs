//! A panic ends the process.
//!
//! A thread or task that panicked is gone, and whatever it served hangs, half done; nobody would notice. A process that is gone is
//! noticed by everyone, and recovery from that is what the whole system is made for.

/// From now on, a panic on any thread is reported and then ends the process (SIGABRT).
pub fn end_the_process() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        tracing::error!("this process ends because of the panic reported above; please file it as a bug");
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use cairn_runtime::real::run_role_here;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::time::Duration;

    const NAME: &str = "panics::tests::a_panic_of_a_task_or_of_blocking_work_ends_the_process";
    /// Tells the test that it is the process that has to end.
    const VICTIM: &str = "CAIRN_TEST_PANIC";
    const ABORTED: i32 = 6;

    #[test]
    fn a_panic_of_a_task_or_of_blocking_work_ends_the_process() {
        match std::env::var(VICTIM).as_deref() {
            Ok(place) => panic_in(place),
            Err(_) => ["task", "blocking work"].into_iter().for_each(|place| {
                let program = std::env::current_exe().expect("this program");
                let ended = Command::new(program).args(["--exact", NAME, "--nocapture"]).env(VICTIM, place).output().expect("it starts");
                let said = String::from_utf8_lossy(&ended.stderr);
                assert_eq!(ended.status.signal(), Some(ABORTED), "{place}: {:?} {said}", ended.status);
                assert!(said.contains(&format!("a bug in a {place}")), "{said}");
            }),
        }
    }

    fn panic_in(place: &str) {
        super::end_the_process();
        let place = place.to_owned();
        let outcome = run_role_here("victim", |runtime| async move {
            if place == "task" {
                runtime.spawn("a task", async move { panic!("a bug in a {place}") });
            } else {
                runtime.executor.blocking(Box::new(move || panic!("a bug in a {place}")));
            }
            runtime.sleep(Duration::from_secs(30)).await;
        });
        outcome.expect("a thread");
    }
}
