//! A disk in memory that is slow, fails, and loses what it had not synced.

use std::cell::RefCell;
use std::rc::Rc;

use super::random::Random;
use crate::checkpoint::row::{self, Row};
use crate::checkpoint::store::Store;

/// What outlives the process.
pub struct DiskState {
    pub text: Vec<u8>,
    pub random: Random,
    pub is_healthy: bool,
}

pub struct Saver {
    disk: Rc<RefCell<DiskState>>,
    pending: RefCell<Option<(u64, Vec<u8>)>>,
    durable: RefCell<u64>,
}

impl Saver {
    pub fn new(disk: Rc<RefCell<DiskState>>) -> Self {
        Self { disk, pending: RefCell::default(), durable: RefCell::default() }
    }

    /// Looks whether the save under way is done by now.
    fn proceed(&self) {
        let mut disk = self.disk.borrow_mut();
        if (disk.is_healthy || disk.random.chance(50))
            && let Some((version, text)) = self.pending.borrow_mut().take()
        {
            disk.text = text;
            *self.durable.borrow_mut() = version;
        }
    }
}

impl Drop for Saver {
    /// The process is killed in the middle of a save: the rename happened, or it did not.
    fn drop(&mut self) {
        let mut disk = self.disk.borrow_mut();
        if let Some((_, text)) = self.pending.borrow_mut().take()
            && disk.random.chance(50)
        {
            disk.text = text;
        }
    }
}

impl Store for Saver {
    fn is_ready(&self) -> bool {
        self.pending.borrow().is_none()
    }

    fn save(&mut self, version: u64, rows: Vec<Row>) {
        *self.pending.borrow_mut() = Some((version, row::to_text(&rows)));
    }

    fn durable(&self) -> u64 {
        self.proceed();
        *self.durable.borrow()
    }

    fn num_failures(&self) -> u64 {
        0
    }
}
