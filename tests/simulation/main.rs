//! Many sidecars, one seed, virtual time, and a broker that does what brokers do: the promises P1
//! to P8 after every step.
//!
//! A seed that breaks a promise prints itself with its last events; add it to
//! `simulation/seeds.txt` and it is run for ever. More of them, or longer:
//! `DRIFTGATE_SIM_SEEDS=2000 DRIFTGATE_SIM_STEPS=5000 cargo test --release --test simulation --
//! --nocapture`.

#[cfg(test)]
mod broker;
#[cfg(test)]
mod checkers;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod driver;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod letter;
#[cfg(test)]
mod name;
#[cfg(test)]
mod node;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod random;
#[cfg(test)]
mod report;
#[cfg(test)]
mod runtime;
#[cfg(test)]
mod tally;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod uploads;
#[cfg(test)]
mod world;

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Instant;

    use crate::node::Parts;
    use crate::tally::Tally;
    use crate::world::World;

    /// Seeds that `cargo test` runs; more with `DRIFTGATE_SIM_SEEDS`.
    const SEEDS: u64 = 60;
    /// Steps of each; more with `DRIFTGATE_SIM_STEPS`.
    const STEPS: u64 = 3000;

    fn setting(name: &str, default: u64) -> u64 {
        std::env::var_os(name)
            .map_or(default, |text| text.to_str().and_then(|text| text.parse().ok()).expect(name))
    }

    /// Runs one seed: its trace hash and tally, or what broke.
    fn run(parts: &Parts, seed: u64, steps: u64) -> Result<(u64, Tally), String> {
        let mut world = World::new(parts, seed);
        let panicked = catch_unwind(AssertUnwindSafe(|| world.run(steps))).is_err();
        let violation = world.trace.violation.clone();
        match violation.or_else(|| panicked.then(|| "a panic, see above".to_owned())) {
            None => Ok((world.trace.hash(), world.tally)),
            Some(text) => Err(format!(
                "seed {seed}, step {}: {text}\nthe last events:\n{}",
                world.tally.steps,
                world.trace.trail()
            )),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "how long a run takes is what is printed")]
    fn stopwatch() -> Instant {
        Instant::now()
    }

    fn run_all(seeds: impl Iterator<Item = u64>, steps: u64) -> Tally {
        let begun = stopwatch();
        let parts = Parts::new();
        let mut total = Tally::default();
        let mut failures = Vec::new();
        let mut count = 0;
        for seed in seeds {
            count += 1;
            match run(&parts, seed, steps) {
                Ok((_, tally)) => total.add(&tally),
                Err(text) => {
                    println!("{text}");
                    failures.push(seed);
                }
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        let speed = f64::from(u32::try_from(total.steps).unwrap_or(u32::MAX)) / seconds;
        println!(
            "{count} seeds, {} violations, {seconds:.1} s, {speed:.0} steps per second, {total:?}",
            failures.len()
        );
        assert!(failures.is_empty(), "seeds {failures:?} break a promise");
        total
    }

    #[test]
    fn the_same_seed_gives_the_same_trace_twice() {
        let parts = Parts::new();
        for seed in 1..=5 {
            let once = run(&parts, seed, STEPS).map(|(hash, _)| hash);
            let twice = run(&parts, seed, STEPS).map(|(hash, _)| hash);
            assert_eq!(once, twice, "seed {seed}");
        }
    }

    #[test]
    fn seeds_that_once_broke_a_promise_keep_it_now() {
        let text = include_str!("seeds.txt");
        let seeds = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let seeds = seeds.filter(|seed| !seed.is_empty());
        run_all(seeds.map(|seed| seed.parse().expect("a seed per line")), STEPS);
    }

    #[test]
    fn no_promise_breaks_under_faults() {
        let seeds = setting("DRIFTGATE_SIM_SEEDS", SEEDS);
        let steps = setting("DRIFTGATE_SIM_STEPS", STEPS);
        let first = setting("DRIFTGATE_SIM_FIRST", 1);
        let total = run_all(first..first + seeds, steps);
        for (what, count) in total.columns() {
            assert!(count > 0, "{what}: nothing of it has happened, so nothing is shown");
        }
    }
}
