//! Replies of one socket that can be given again, byte for byte, as long as the catalog stays as it is.
//!
//! Most questions are asked over and over: finding the packet costs a tenth of taking it apart. Bounded; pure. Knows
//! neither sockets nor what is in a packet beyond its number.

use std::collections::HashMap;

/// Questions remembered.
const QUESTIONS: usize = 1024;
/// Longest question remembered, in bytes.
const LONGEST: usize = 320;
/// Most replies to one question, which take turns.
const MOST_TURNS: usize = 8;
/// The number that an asker gave its question comes first.
const NUMBER_BYTES: usize = 2;

/// Replies to the packets they answer, the numbers of both apart.
#[derive(Default)]
pub(crate) struct Memo {
    /// Of which state of the catalog they are.
    generation: u64,
    known: HashMap<Box<[u8]>, Turns>,
}

struct Turns {
    replies: Vec<Box<[u8]>>,
    /// As many as there are orders of the records.
    wanted: usize,
    next: usize,
}

impl Memo {
    /// The reply to a packet, written to `out`. False if it must be made, by [`Self::keep`] for the next time.
    pub(crate) fn reply(&mut self, packet: &[u8], generation: u64, out: &mut Vec<u8>) -> bool {
        if self.generation != generation {
            self.known.clear();
            self.generation = generation;
        }
        let Some((number, question)) = packet.split_at_checked(NUMBER_BYTES) else { return false };
        let Some(turns) = self.known.get_mut(question) else { return false };
        if turns.replies.len() < turns.wanted {
            return false;
        }
        turns.next = (turns.next + 1) % turns.replies.len();
        out.extend_from_slice(number);
        out.extend_from_slice(&turns.replies[turns.next]);
        true
    }

    /// Keeps a reply; it takes turns with others if there are `turns` of them. Never, if that is 0.
    pub(crate) fn keep(&mut self, packet: &[u8], reply: &[u8], turns: usize) {
        if turns == 0 || packet.len() > LONGEST {
            return;
        }
        let (Some(question), Some(reply)) = (packet.get(NUMBER_BYTES..), reply.get(NUMBER_BYTES..))
        else {
            return;
        };
        if self.known.len() >= QUESTIONS {
            // Someone asks for very many names; starting over is cheaper than ranking them.
            self.known.clear();
        }
        let wanted = turns.min(MOST_TURNS);
        let known = self.known.entry(question.into());
        let known = known.or_insert_with(|| Turns { replies: Vec::new(), wanted, next: 0 });
        if known.replies.len() < known.wanted {
            known.replies.push(reply.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(memo: &mut Memo, packet: &[u8], generation: u64) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        memo.reply(packet, generation, &mut out).then_some(out)
    }

    #[test]
    fn replies_keep_the_number_of_the_asker_and_end_with_the_catalog() {
        let mut memo = Memo::default();
        assert_eq!(ask(&mut memo, b"\x00\x01question", 3), None);
        memo.keep(b"\x00\x01question", b"\x00\x01answer", 1);
        assert_eq!(ask(&mut memo, b"\x07\x08question", 3).as_deref(), Some(&b"\x07\x08answer"[..]));
        assert_eq!(ask(&mut memo, b"\x07\x08other", 3), None);
        assert_eq!(ask(&mut memo, b"\x07\x08question", 4), None, "the catalog has changed");
        assert_eq!(ask(&mut memo, b"\x07", 4), None);
    }

    #[test]
    fn replies_take_turns_and_what_changes_is_not_kept() {
        let mut memo = Memo::default();
        memo.keep(b"00q", b"00a", 2);
        assert_eq!(ask(&mut memo, b"00q", 0), None, "the second is still to come");
        memo.keep(b"00q", b"00b", 2);
        let given: Vec<_> = (0..4).filter_map(|_| ask(&mut memo, b"00q", 0)).collect();
        assert_eq!(given, [b"00b", b"00a", b"00b", b"00a"]);
        memo.keep(b"00p", b"00x", 0);
        memo.keep(&[b'l'; 500], b"00x", 1);
        assert_eq!((ask(&mut memo, b"00p", 0), ask(&mut memo, &[b'l'; 500], 0)), (None, None));
    }
}
