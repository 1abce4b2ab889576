//! Below what the node is under pressure: `--eviction-hard`, in the kubelet's
//! words (`memory.available<100Mi,nodefs.available<10%`).

use triarch_kubelet::quantity;

/// How much has to be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Bytes(u64),
    /// Thousandths of the whole.
    Share(u64),
}

impl Amount {
    fn parse(text: &str) -> Option<Amount> {
        match text.strip_suffix('%') {
            Some(share) => {
                let thousandths = quantity::whole(share).filter(|s| (0..=100).contains(s))? * 10;
                Some(Amount::Share(thousandths.unsigned_abs()))
            }
            None => quantity::whole(text).filter(|b| *b >= 0).map(|b| Amount::Bytes(b.unsigned_abs())),
        }
    }

    /// In bytes, of a whole of `total`.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Amount::Bytes(b) => b.min(total),
            Amount::Share(thousandths) => (u128::from(total) * u128::from(thousandths) / 1000) as u64,
        }
    }
}

/// The thresholds that are looked at. The defaults are the kubelet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub memory: Amount,
    pub disk: Amount,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds { memory: Amount::Bytes(100 << 20), disk: Amount::Share(100) }
    }
}

impl Thresholds {
    /// Reads `SIGNAL<AMOUNT,…`; signals that are not named keep their default.
    pub fn parse(text: &str) -> Result<Thresholds, String> {
        let mut out = Thresholds::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let wrong = |why: &str| format!("{part:?}: {why}; an example: memory.available<100Mi,nodefs.available<10%");
            let (signal, amount) = part.split_once('<').ok_or_else(|| wrong("expected SIGNAL<AMOUNT"))?;
            let amount =
                Amount::parse(amount).ok_or_else(|| wrong("the amount is neither a quantity nor 0% to 100%"))?;
            match signal {
                "memory.available" => out.memory = amount,
                "nodefs.available" => out.disk = amount,
                _ => return Err(wrong("the signals are memory.available and nodefs.available")),
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_as_the_kubelet_writes_them() {
        assert_eq!(Thresholds::parse(""), Ok(Thresholds::default()));
        let t = Thresholds::parse("nodefs.available<1Gi").expect("valid");
        assert_eq!((t.disk, t.memory), (Amount::Bytes(1 << 30), Thresholds::default().memory));
        let t = Thresholds::parse("memory.available<5%,nodefs.available<0%").expect("valid");
        assert_eq!((t.memory.of(1000), t.disk.of(1000)), (50, 0));
    }

    #[test]
    fn a_bad_threshold_says_what_is_taken() {
        for (text, why) in [
            ("nodefs.available", "SIGNAL<AMOUNT"),
            ("nodefs.available<lots", "neither a quantity"),
            ("nodefs.available<101%", "neither a quantity"),
            ("nodefs.available<-1", "neither a quantity"),
            ("imagefs.available<5%", "the signals are memory.available and nodefs.available"),
        ] {
            let said = Thresholds::parse(text).expect_err("refused");
            assert!(said.contains(why) && said.contains("nodefs.available"), "{said}");
        }
    }
}
