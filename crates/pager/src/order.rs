//! What an order by faults alone can reach, in a simulation: [`Heat`](crate::heat::Heat) beside orders that see every touch.
//!
//! `cargo test -p vswap-pager order -- --nocapture` prints the shares of touches that miss.

use crate::heat::{Heat, Terms};
use vswap_core::{Bitmap512, PAGES_PER_CLUSTER, PageIndex};

/// Pages of the area: 128 MiB. (With 1 GiB all orders miss some 2 % fewer.)
const PAGES: usize = 64 * PAGES_PER_CLUSTER;
/// Pages that memory holds: as many as 512 MiB hold of 1 GiB whose cold part is compressed 6 : 1.
const ROOM: usize = PAGES * 37 / 100;

/// An order of eviction: is told of touches, decides who goes.
trait Order {
    /// Whether `page` was not in memory.
    fn misses(&mut self, page: usize) -> bool;
}

/// First in, first out.
struct Fifo {
    present: Vec<bool>,
    queue: std::collections::VecDeque<usize>,
}

impl Order for Fifo {
    fn misses(&mut self, page: usize) -> bool {
        if std::mem::replace(&mut self.present[page], true) {
            return false;
        }
        self.queue.push_back(page);
        if self.queue.len() > ROOM {
            let gone = self.queue.pop_front().unwrap();
            self.present[gone] = false;
        }
        true
    }
}

/// One hand and the page table's accessed bits, which userfaultfd does not show.
struct Clock {
    present: Vec<bool>,
    accessed: Vec<bool>,
    count: usize,
    hand: usize,
}

impl Order for Clock {
    fn misses(&mut self, page: usize) -> bool {
        self.accessed[page] = true;
        if self.present[page] {
            return false;
        }
        while self.count >= ROOM {
            self.hand = (self.hand + 1) % PAGES;
            let spared = std::mem::take(&mut self.accessed[self.hand]);
            if self.present[self.hand] && !spared {
                self.present[self.hand] = false;
                self.count -= 1;
            }
        }
        self.accessed[page] = true;
        self.present[page] = true;
        self.count += 1;
        true
    }
}

/// The page that was not touched for longest: exact, for which each touch must be seen.
struct Lru {
    last: Vec<u64>,
    by_time: std::collections::BTreeMap<u64, usize>,
    now: u64,
}

impl Order for Lru {
    fn misses(&mut self, page: usize) -> bool {
        self.now += 1;
        let hit = self.by_time.remove(&self.last[page]).is_some();
        self.last[page] = self.now;
        self.by_time.insert(self.now, page);
        if self.by_time.len() > ROOM {
            self.by_time.pop_first();
        }
        !hit
    }
}

/// The clock of the evictors over blocks, with the ranks of [`Heat`]; faults are all that it sees.
struct ByFaults {
    blocks: Vec<Seen>,
    terms: Terms,
    resident: usize,
    evicted: u64,
    hand: usize,
}

struct Seen {
    heat: Heat,
    resident: Bitmap512,
    young: Bitmap512,
    known: Bitmap512,
}

impl ByFaults {
    fn new() -> ByFaults {
        let seen = |_| Seen {
            heat: Heat::COLD,
            resident: Bitmap512::EMPTY,
            young: Bitmap512::EMPTY,
            known: Bitmap512::EMPTY,
        };
        let blocks = (0..PAGES / PAGES_PER_CLUSTER).map(seen).collect();
        ByFaults { blocks, terms: Terms::default(), resident: 0, evicted: 0, hand: 0 }
    }

    /// As `Block::choose_victims` and what follows.
    fn evict(&mut self) {
        while self.resident >= ROOM {
            let block = &mut self.blocks[self.hand];
            self.hand = (self.hand + 1) % (PAGES / PAGES_PER_CLUSTER);
            let victims = block.resident.and_not(&(block.young | block.heat.hot()));
            block.heat.pass(block.resident.and_not(&block.young));
            block.young = Bitmap512::EMPTY;
            block.resident = block.resident.and_not(&victims);
            block.known |= victims;
            self.resident -= victims.count();
            self.evicted += victims.count() as u64;
            self.terms.advance(self.evicted, self.resident as u64);
            block.heat.go(victims, self.terms.now());
        }
    }
}

impl Order for ByFaults {
    fn misses(&mut self, page: usize) -> bool {
        let (at, page) = (page / PAGES_PER_CLUSTER, PageIndex::new(page % PAGES_PER_CLUSTER).unwrap());
        if self.blocks[at].resident.get(page) {
            return false;
        }
        self.evict();
        let now = self.terms.now();
        let block = &mut self.blocks[at];
        if block.known.get(page) {
            let soon = block.heat.is_soon(page, now);
            block.heat.come_back(page, soon);
        }
        block.resident.set(page);
        block.young.set(page);
        self.resident += 1;
        true
    }
}

/// Pages by Zipf's law (exponent 0.99), the ranks spread over the area.
struct Zipf {
    until: Vec<f64>,
    page: Vec<usize>,
    random: u64,
}

impl Zipf {
    fn new() -> Zipf {
        let mut zipf = Zipf { until: Vec::new(), page: (0..PAGES).collect(), random: 88172645463325252 };
        let mut sum = 0.0;
        for rank in 1..=PAGES {
            sum += (rank as f64).powf(-0.99);
            zipf.until.push(sum);
        }
        for i in (1..PAGES).rev() {
            let other = zipf.draw() as usize % (i + 1);
            zipf.page.swap(i, other);
        }
        zipf
    }

    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn next(&mut self) -> usize {
        let all = self.until[PAGES - 1];
        let at = (self.draw() >> 11) as f64 / (1u64 << 53) as f64 * all;
        self.page[self.until.partition_point(|until| *until <= at).min(PAGES - 1)]
    }

    /// The share of touches that miss if the pages touched most are in memory for ever.
    fn least(&self) -> f64 {
        1.0 - self.until[ROOM - 1] / self.until[PAGES - 1]
    }
}

/// The share of touches that miss: of 15 times the area, after 30 times.
fn share(mut order: impl Order) -> f64 {
    let mut zipf = Zipf::new();
    for page in 0..PAGES {
        order.misses(page);
    }
    for _ in 0..30 * PAGES {
        order.misses(zipf.next());
    }
    let touches = 15 * PAGES;
    let missed = (0..touches).filter(|_| order.misses(zipf.next())).count();
    missed as f64 / touches as f64
}

#[test]
fn order_by_faults_misses_no_more_of_a_zipf_load_than_least_recently_used() {
    let fifo = share(Fifo { present: vec![false; PAGES], queue: Default::default() });
    let accessed = vec![false; PAGES];
    let clock = share(Clock { present: vec![false; PAGES], accessed, count: 0, hand: 0 });
    let lru = share(Lru { last: vec![0; PAGES], by_time: Default::default(), now: 0 });
    let by_faults = share(ByFaults::new());
    let least = Zipf::new().least();
    println!("misses of a Zipf load, memory for 37 % of the pages:");
    for (name, share) in [
        ("first in, first out", fifo),
        ("one hand, accessed bits", clock),
        ("least recently used, each touch seen", lru),
        ("vswap's: ranks, faults alone", by_faults),
        ("the hottest pages for ever", least),
    ] {
        println!("{:6.2} %  {name}", share * 100.0);
    }
    assert!(by_faults < lru * 1.02 && by_faults < clock * 1.02, "{by_faults} of {lru} and {clock}");
    assert!(by_faults < fifo * 0.85, "{by_faults} of {fifo}");
    assert!(least < by_faults);
}
