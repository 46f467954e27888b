//! A set of disjoint byte ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint, joined where they touch: start to end.
#[derive(Debug, Default, Clone)]
pub(crate) struct Intervals(BTreeMap<u64, u64>);

impl Intervals {
    /// Whether any byte of `range` is in the set.
    pub fn overlaps(&self, range: Range<u64>) -> bool {
        self.0.range(..range.end).next_back().is_some_and(|(_, &end)| end > range.start) && range.start < range.end
    }

    /// Add a range; `false`, and nothing added, where it overlaps the set.
    pub fn insert(&mut self, range: Range<u64>) -> bool {
        if self.overlaps(range.clone()) {
            return false;
        }
        if range.start >= range.end {
            return true;
        }
        let Range { mut start, mut end } = range;
        if let Some((&before, &touching)) = self.0.range(..=start).next_back()
            && touching == start
        {
            start = before;
        }
        if let Some(after) = self.0.remove(&end) {
            end = after;
        }
        self.0.insert(start, end);
        true
    }

    /// Whether every byte of `range` is in the set.
    pub fn contains(&self, range: Range<u64>) -> bool {
        self.0.range(..=range.start).next_back().is_some_and(|(_, &end)| end >= range.end)
    }

    /// Where the range that starts at 0 ends; 0 if there is none.
    pub fn prefix(&self) -> u64 {
        self.0.get(&0).copied().unwrap_or(0)
    }

    /// The first byte below `end` that is not in the set.
    pub fn first_gap(&self, end: u64) -> Option<u64> {
        Some(self.prefix()).filter(|&at| at < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain list of flags.
        #[test]
        fn behaves_as_a_bitmap(ranges in prop::collection::vec((0u64..64, 0u64..12), 0..40)) {
            let mut flags = [false; 80];
            let mut set = Intervals::default();
            for (start, len) in ranges {
                let range = start as usize..(start + len) as usize;
                let taken = range.clone().all(|at| flags[at]);
                prop_assert_eq!(len == 0 || set.contains(start..start + len), len == 0 || taken);
                let free = flags[range.clone()].iter().all(|f| !f);
                prop_assert_eq!(set.insert(start..start + len), free);
                if free {
                    flags[range].fill(true);
                }
                prop_assert_eq!(set.prefix() as usize, flags.iter().position(|f| !f).unwrap());
            }
            prop_assert!(set.0.iter().zip(set.0.iter().skip(1)).all(|(a, b)| a.1 < b.0), "joined where they touch");
        }
    }
}
