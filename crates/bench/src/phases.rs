//! What each contestant does.
//!
//! Puts are timed with everything in between, up to and including the sync that ends them: whoever works in the background gains nothing by the
//! time in which the next object is made. Gets are timed one by one, and what was got is looked at between them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::contestant::{Contestant, Found};
use crate::latency::Latencies;
use crate::payload::{Check, Random, fill};
use crate::zipf::Zipf;

/// Bytes that are put between two syncs.
const SYNC_EVERY: usize = 8 << 20;
/// Hot is a set of this part of the memory: with all that comes with them, it is to fit.
const HOT_PART: usize = 4;

/// When gets end.
#[derive(Clone, Copy)]
pub struct Limit {
    pub gets: usize,
    pub seconds: f64,
}

impl Limit {
    fn reached(self, latencies: &Latencies, begin: Instant) -> bool {
        latencies.len() >= self.gets || begin.elapsed().as_secs_f64() >= self.seconds
    }
}

/// Puts them all, and gets the last ones again and again.
pub fn put_and_hot<C: Contestant>(
    mut contestant: C,
    size: usize,
    objects: u64,
    memory: usize,
    limit: Limit,
) -> Result<Value> {
    let mut bytes = vec![0; size];
    let begin = Instant::now();
    let mut syncs = Duration::ZERO;
    for number in 0..objects {
        fill(number, &mut bytes);
        contestant.put(number, &bytes).with_context(|| format!("put {number}"))?;
        if (number + 1).is_multiple_of((SYNC_EVERY / size) as u64) || number + 1 == objects {
            let begin = Instant::now();
            contestant.sync()?;
            syncs += begin.elapsed();
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let rate = objects as f64 / seconds;
    let put = json!({
        "objects": objects,
        "seconds": seconds,
        "sync_seconds": syncs.as_secs_f64(),
        "objects_per_s": rate,
        "mb_per_s": rate * size as f64 / 1e6,
    });
    let hot = hot(&mut contestant, size, objects, memory, limit)?;
    contestant.close()?;
    Ok(json!({ "put": put, "hot": hot }))
}

fn hot<C: Contestant>(
    contestant: &mut C,
    size: usize,
    objects: u64,
    memory: usize,
    limit: Limit,
) -> Result<Value> {
    let set = ((memory / HOT_PART / size) as u64).clamp(1, objects);
    let first = objects - set;
    let (mut check, mut random) = (Check::new(size), Random::new(2));
    // Once, so that whoever keeps in memory what is got has it there.
    for number in first..objects {
        let got = contestant.get(number, size)?.with_context(|| format!("object {number} is not there"))?;
        check.check(number, got.as_ref())?;
    }
    let before = contestant.found(set, size)?;
    let (mut latencies, begin) = (Latencies::default(), Instant::now());
    while !limit.reached(&latencies, begin) {
        let number = first + random.draw() % set;
        take(contestant, number, size, &mut check, &mut latencies)?
            .with_context(|| format!("object {number} is not there"))?;
    }
    let mut said = latencies.say(size);
    let after = contestant.found(set + latencies.len() as u64, size)?;
    note_parts(&mut said, before, after, latencies.len());
    Ok(said)
}

/// Gets each once, in an order of chance.
pub fn cold<C: Contestant>(
    mut contestant: C,
    size: usize,
    objects: u64,
    opened: Duration,
    limit: Limit,
) -> Result<Value> {
    let (mut check, mut latencies) = (Check::new(size), Latencies::default());
    let before = contestant.found(0, size)?;
    let (mut missing, begin) = (0_u64, Instant::now());
    for number in Random::new(3).order(objects) {
        if limit.reached(&latencies, begin) {
            break;
        }
        if take(&mut contestant, number, size, &mut check, &mut latencies)?.is_none() {
            missing += 1;
        }
    }
    let mut said = latencies.say(size);
    let after = contestant.found(latencies.len() as u64 - missing, size)?;
    note_parts(&mut said, before, after, latencies.len());
    said["open_ms"] = json!(opened.as_secs_f64() * 1e3);
    said["missing"] = json!(missing);
    contestant.close()?;
    Ok(json!({ "cold": said }))
}

/// Gets by Zipf's law; what is not there is made and put.
pub fn through<C: Contestant>(mut contestant: C, size: usize, objects: u64, limit: Limit) -> Result<Value> {
    let mut zipf = Zipf::over(objects, 4);
    let (mut check, mut latencies, mut bytes) = (Check::new(size), Latencies::default(), vec![0; size]);
    let (mut misses, mut unsynced) = (0_u64, 0);
    let begin = Instant::now();
    for _ in 0..limit.gets {
        let number = zipf.draw();
        if take(&mut contestant, number, size, &mut check, &mut latencies)?.is_some() {
            continue;
        }
        misses += 1;
        fill(number, &mut bytes);
        contestant.put(number, &bytes).with_context(|| format!("put {number}"))?;
        unsynced += size;
        if unsynced >= SYNC_EVERY {
            contestant.sync()?;
            unsynced = 0;
        }
    }
    contestant.sync()?;
    let seconds = begin.elapsed().as_secs_f64();
    let mut said = latencies.say(size);
    let after = contestant.found(latencies.len() as u64 - misses, size)?;
    note_parts(&mut said, Found::default(), after, latencies.len());
    said["ops_per_s"] = json!(limit.gets as f64 / seconds);
    said["miss_part"] = json!(misses as f64 / limit.gets as f64);
    contestant.close()?;
    Ok(json!({ "through": said }))
}

/// Gets one, timed, and looks at it.
fn take<C: Contestant>(
    contestant: &mut C,
    number: u64,
    size: usize,
    check: &mut Check,
    latencies: &mut Latencies,
) -> Result<Option<()>> {
    let begin = Instant::now();
    let got = contestant.get(number, size);
    latencies.add(begin.elapsed());
    match got {
        Ok(Some(got)) => check.check(number, got.as_ref()).map(Some),
        Ok(None) => Ok(None),
        Err(error) => bail!("get {number}: {error:#}"),
    }
}

fn note_parts(said: &mut Value, before: Found, after: Found, gets: usize) {
    said["memory_part"] = json!((after.memory - before.memory) / gets as f64);
    said["disk_part"] = json!((after.disk - before.disk) / gets as f64);
}
