//! Traces that are made: pages by number, in the order in which they are touched. Each replays exactly.

/// Pages that a trace touches at the most: 128 MiB, 64 blocks.
pub const PAGES: u32 = 32_768;
const TOUCHES: usize = 1_000_000;

/// A trace and what it is of.
pub struct Trace {
    pub name: String,
    pub what: String,
    pub touches: Vec<u32>,
    /// All that it touches are below this.
    pub pages: u32,
}

impl Trace {
    fn new(name: &str, what: &str, touches: Vec<u32>) -> Trace {
        Trace { name: name.into(), what: what.into(), touches, pages: PAGES }
    }

    /// Different pages that it touches.
    pub fn footprint(&self) -> usize {
        let mut seen = self.touches.clone();
        seen.sort_unstable();
        seen.dedup();
        seen.len()
    }
}

/// All of them.
pub fn all() -> Vec<Trace> {
    vec![
        Trace::new("zipf", "Zipf's law, exponent 0.99, ranks scattered over the area", zipf_alone()),
        Trace::new("loop", "the same pages upwards, over and over", looped()),
        Trace::new(
            "scan",
            "Zipf over an eighth of the area; after every 100,000 touches the rest is read once",
            scanned(),
        ),
        Trace::new(
            "mixed",
            "four touches by Zipf over half of the area, one of a scan that goes round the other half",
            mixed(),
        ),
        Trace::new(
            "phases",
            "Zipf over a quarter of the area, which is another one every 100,000 touches",
            phases(),
        ),
        Trace::new("turns", "an eighth of the area upwards, eight times over, then the next eighth", turns()),
    ]
}

/// Xorshift: the same numbers everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Pages by Zipf's law over the pages from 0.
struct Zipf {
    until: Vec<f64>,
    page: Vec<u32>,
    random: Random,
}

impl Zipf {
    fn over(pages: u32) -> Zipf {
        let mut random = Random(88_172_645_463_325_252);
        let mut page: Vec<u32> = (0..pages).collect();
        for i in (1..page.len()).rev() {
            page.swap(i, random.draw() as usize % (i + 1));
        }
        let mut sum = 0.0;
        let until = (1..=pages).map(|rank| {
            sum += f64::from(rank).powf(-0.99);
            sum
        });
        Zipf { until: until.collect(), page, random }
    }

    fn next(&mut self) -> u32 {
        let all = self.until[self.until.len() - 1];
        let at = (self.random.draw() >> 11) as f64 / (1u64 << 53) as f64 * all;
        self.page[self.until.partition_point(|until| *until <= at).min(self.page.len() - 1)]
    }
}

fn zipf_alone() -> Vec<u32> {
    let mut zipf = Zipf::over(PAGES);
    (0..TOUCHES).map(|_| zipf.next()).collect()
}

fn looped() -> Vec<u32> {
    (0..TOUCHES as u32).map(|at| at % PAGES).collect()
}

fn scanned() -> Vec<u32> {
    let hot = PAGES / 8;
    let mut zipf = Zipf::over(hot);
    let mut touches = Vec::new();
    while touches.len() < TOUCHES {
        touches.extend((0..100_000).map(|_| zipf.next()));
        touches.extend(hot..PAGES);
    }
    touches
}

fn mixed() -> Vec<u32> {
    let half = PAGES / 2;
    let mut zipf = Zipf::over(half);
    let touch = |at: u32| if at % 5 == 4 { half + at / 5 % half } else { zipf.next() };
    (0..TOUCHES as u32).map(touch).collect()
}

fn phases() -> Vec<u32> {
    let quarter = PAGES / 4;
    let mut zipf = Zipf::over(quarter);
    let touch = |at: u32| (at / 100_000 % 4) * quarter + zipf.next();
    (0..TOUCHES as u32).map(touch).collect()
}

fn turns() -> Vec<u32> {
    let eighth = PAGES / 8;
    let touch = |at: u32| (at / eighth / 8 % 8) * eighth + at % eighth;
    (0..TOUCHES as u32).map(touch).collect()
}

#[cfg(test)]
mod tests {
    use super::{PAGES, all};

    #[test]
    fn traces_are_the_same_each_time_and_stay_within_the_area() {
        for (one, other) in all().into_iter().zip(all()) {
            assert!(one.touches == other.touches, "{}", one.name);
            assert!(one.touches.iter().all(|page| *page < PAGES), "{}", one.name);
            assert!(one.footprint() > PAGES as usize / 2, "{}", one.name);
        }
    }
}
