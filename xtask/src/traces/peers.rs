//! Orders to compare with: they see every touch. `tests` holds each against a plain and slow one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

/// An order of eviction: is told of touches, decides who goes.
pub trait Order {
    /// Whether `page` was in memory.
    fn hits(&mut self, page: u32) -> bool;
}

/// The page that came first goes: what can be done without seeing touches.
pub struct Fifo {
    room: usize,
    present: HashSet<u32>,
    queue: VecDeque<u32>,
}

impl Fifo {
    pub fn new(room: usize) -> Fifo {
        Fifo { room, present: HashSet::new(), queue: VecDeque::new() }
    }
}

impl Order for Fifo {
    fn hits(&mut self, page: u32) -> bool {
        if !self.present.insert(page) {
            return true;
        }
        if self.queue.len() == self.room
            && let Some(first) = self.queue.pop_front()
        {
            self.present.remove(&first);
        }
        self.queue.push_back(page);
        false
    }
}

/// The page that was not touched for longest goes.
pub struct Lru {
    room: usize,
    last: HashMap<u32, u64>,
    by_time: BTreeMap<u64, u32>,
    now: u64,
}

impl Lru {
    pub fn new(room: usize) -> Lru {
        Lru { room, last: HashMap::new(), by_time: BTreeMap::new(), now: 0 }
    }
}

impl Order for Lru {
    fn hits(&mut self, page: u32) -> bool {
        self.now += 1;
        let before = self.last.insert(page, self.now);
        if let Some(before) = before {
            self.by_time.remove(&before);
        } else if self.by_time.len() == self.room
            && let Some((_, gone)) = self.by_time.pop_first()
        {
            self.last.remove(&gone);
        }
        self.by_time.insert(self.now, page);
        before.is_some()
    }
}

/// First in, first out, but a page touched since it came or was looked at last goes round once more (CLOCK, one bit).
pub struct Clock {
    room: usize,
    touched: HashMap<u32, bool>,
    queue: VecDeque<u32>,
}

impl Clock {
    pub fn new(room: usize) -> Clock {
        Clock { room, touched: HashMap::new(), queue: VecDeque::new() }
    }
}

impl Order for Clock {
    fn hits(&mut self, page: u32) -> bool {
        if let Some(touched) = self.touched.get_mut(&page) {
            *touched = true;
            return true;
        }
        while self.queue.len() >= self.room {
            let Some(oldest) = self.queue.pop_front() else { break };
            if self.touched.insert(oldest, false) == Some(true) {
                self.queue.push_back(oldest);
            } else {
                self.touched.remove(&oldest);
            }
        }
        self.touched.insert(page, false);
        self.queue.push_back(page);
        false
    }
}

/// S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023): a tenth of the room for what is new, a main
/// queue for what was touched again, and the names of as many that left the first as the main one holds.
pub struct S3Fifo {
    room: usize,
    small_room: usize,
    /// Touches of what is in memory, three at the most.
    touches: HashMap<u32, u8>,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    ghosts: VecDeque<(u32, u64)>,
    /// Those of the ghosts that have not come back, by when they came.
    known: HashMap<u32, u64>,
    now: u64,
}

impl S3Fifo {
    pub fn new(room: usize) -> S3Fifo {
        S3Fifo {
            room,
            small_room: (room / 10).max(1),
            touches: HashMap::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: VecDeque::new(),
            known: HashMap::new(),
            now: 0,
        }
    }

    fn evict(&mut self) {
        if self.small.len() >= self.small_room && self.evict_small() {
            return;
        }
        if !self.evict_main() {
            self.evict_small();
        }
    }

    fn evict_small(&mut self) -> bool {
        while let Some(page) = self.small.pop_front() {
            if self.touches[&page] > 1 {
                self.touches.insert(page, 0);
                self.main.push_back(page);
                continue;
            }
            self.touches.remove(&page);
            self.now += 1;
            self.ghosts.push_back((page, self.now));
            self.known.insert(page, self.now);
            while self.ghosts.len() > self.room - self.small_room.min(self.room) {
                let Some((old, when)) = self.ghosts.pop_front() else { break };
                if self.known.get(&old) == Some(&when) {
                    self.known.remove(&old);
                }
            }
            return true;
        }
        false
    }

    fn evict_main(&mut self) -> bool {
        while let Some(page) = self.main.pop_front() {
            match self.touches[&page] {
                0 => {
                    self.touches.remove(&page);
                    return true;
                }
                touches => {
                    self.touches.insert(page, touches - 1);
                    self.main.push_back(page);
                }
            }
        }
        false
    }
}

impl Order for S3Fifo {
    fn hits(&mut self, page: u32) -> bool {
        if let Some(touches) = self.touches.get_mut(&page) {
            *touches = (*touches + 1).min(3);
            return true;
        }
        while self.small.len() + self.main.len() >= self.room {
            self.evict();
        }
        let back = self.known.remove(&page).is_some();
        if back {
            self.main.push_back(page)
        } else {
            self.small.push_back(page)
        }
        self.touches.insert(page, 0);
        false
    }
}

/// The page that will not be touched for longest goes (Belady): no order on demand has more hits.
pub struct Optimum {
    room: usize,
    /// When the page of each touch is touched again.
    next: Vec<usize>,
    at: usize,
    present: HashSet<u32>,
    by_next: BTreeSet<(usize, u32)>,
}

impl Optimum {
    pub fn new(room: usize, touches: &[u32]) -> Optimum {
        let mut next = vec![usize::MAX; touches.len()];
        let mut seen = HashMap::new();
        for (at, page) in touches.iter().enumerate().rev() {
            if let Some(later) = seen.insert(page, at) {
                next[at] = later;
            }
        }
        Optimum { room, next, at: 0, present: HashSet::new(), by_next: BTreeSet::new() }
    }
}

impl Order for Optimum {
    fn hits(&mut self, page: u32) -> bool {
        let (now, again) = (self.at, self.next[self.at]);
        self.at += 1;
        let hit = !self.present.insert(page);
        if hit {
            self.by_next.remove(&(now, page));
        } else if self.by_next.len() == self.room
            && let Some((_, gone)) = self.by_next.pop_last()
        {
            self.present.remove(&gone);
        }
        self.by_next.insert((again, page));
        hit
    }
}
