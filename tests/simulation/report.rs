//! What the simulated runtimes report, and what a reader of the specification would take from it.
//!
//! The facts are read off the raw numbers that the generator put in, never off anything that the
//! program under test has parsed.

use std::collections::BTreeMap;

use driftgate::protocol::canonical::Json;

use crate::random::Random;

/// One report before it becomes JSON.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RawReport {
    pub(crate) cycle: Option<u32>,
    pub(crate) parts: Option<Parts>,
    pub(crate) di: Option<f64>,
    pub(crate) phase: Option<&'static str>,
    pub(crate) stability: f64,
    pub(crate) status: Option<&'static str>,
    pub(crate) phase_lock: bool,
    pub(crate) recenter: bool,
    pub(crate) psi: Option<f64>,
    pub(crate) psd: Option<f64>,
    pub(crate) er: Option<f64>,
    pub(crate) flaw: Option<Flaw>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Parts {
    pub(crate) sdi: f64,
    pub(crate) sv: f64,
    pub(crate) pd: f64,
    pub(crate) scr: f64,
}

/// What makes a report unreadable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Flaw {
    ZeroCoherence,
    PartMissing,
    PartOverOne,
    PhaseMissing,
    UnknownKey,
    NearMiss,
    UnknownStatus,
    FractionalCycle,
    NoMetrics,
    NotAnObject,
}

const FLAWS: [Flaw; 10] = [
    Flaw::ZeroCoherence,
    Flaw::PartMissing,
    Flaw::PartOverOne,
    Flaw::PhaseMissing,
    Flaw::UnknownKey,
    Flaw::NearMiss,
    Flaw::UnknownStatus,
    Flaw::FractionalCycle,
    Flaw::NoMetrics,
    Flaw::NotAnObject,
];

/// Sums of three parts in hundredths, and the coherence that brings their index to a mark, give or
/// take rounding.
const EDGE_SUMS: [(u64, f64); 3] = [(108, 0.8), (120, 0.8), (144, 0.8)];

/// At, just under and just over the marks.
const EDGES: [f64; 6] =
    [0.45, 0.449_999_999_999_999_9, 0.5, 0.499_999_999_999_999_9, 0.6, 0.599_999_999_999_999_9];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stance {
    Stable,
    Unknown,
    Reflective,
    Recenter,
}

#[derive(Clone, Copy)]
enum Kind {
    Good,
    Caution,
    Edge,
    Block,
    Isolate,
    Phase,
    Flags,
    Critical,
    Contradiction,
    Vital,
    Empty,
    Flawed,
    Bare,
}

/// How often each trouble comes, relative to the others.
const TROUBLES: [(u64, Kind); 12] = [
    (22, Kind::Caution),
    (12, Kind::Edge),
    (22, Kind::Block),
    (10, Kind::Isolate),
    (8, Kind::Phase),
    (4, Kind::Flags),
    (4, Kind::Critical),
    (3, Kind::Contradiction),
    (3, Kind::Vital),
    (3, Kind::Empty),
    (8, Kind::Flawed),
    (10, Kind::Bare),
];

impl RawReport {
    /// A report of the given cycle. `trouble` is how many in a thousand are not simply good.
    pub(crate) fn random(random: &mut Random, cycle: Option<u32>, trouble: u64) -> Self {
        let kind =
            if random.in_thousand(trouble) { random.weighted(&TROUBLES) } else { Kind::Good };
        let share = random.fraction();
        let index = match kind {
            Kind::Caution => 0.45 + 0.049 * share,
            Kind::Block => 0.5 + 0.1 * share,
            Kind::Isolate => 0.6 + 0.5 * share,
            Kind::Good
            | Kind::Edge
            | Kind::Phase
            | Kind::Flags
            | Kind::Critical
            | Kind::Contradiction
            | Kind::Vital
            | Kind::Empty
            | Kind::Flawed
            | Kind::Bare => 0.05 + 0.38 * share,
        };
        let mut report = Self::of_index(random, cycle, index);
        match kind {
            Kind::Good | Kind::Caution | Kind::Block | Kind::Isolate => {}
            Kind::Edge => report.put_on_edge(random),
            Kind::Contradiction => {
                let formula = report.formula().unwrap_or_default();
                report.di = Some(formula + random.pick(&[-0.006, 0.004, 0.006, 0.5]));
            }
            Kind::Vital => match random.below(3) {
                0 => report.psi = Some(random.pick(&[0.599, 0.6, 0.9])),
                1 => report.psd = Some(random.pick(&[0.149, 0.15])),
                _ => report.er = Some(random.pick(&[0.3, 0.301])),
            },
            Kind::Empty => {
                report.parts = Some(Parts { sdi: 0.0, sv: 0.0, pd: 0.0, scr: 1.0 });
                report.di = random.pick(&[None, Some(0.0)]);
            }
            Kind::Phase => {
                report.phase = Some(random.pick(&[
                    "reflective",
                    "Transitional",
                    "recenter",
                    "dissolving",
                    "daydreaming",
                    "initializing",
                ]));
            }
            Kind::Flags => match random.below(4) {
                0 => report.phase_lock = true,
                1 => report.recenter = true,
                2 => report.status = Some("locked"),
                _ => report.status = Some("recenter_pending"),
            },
            Kind::Critical => report.make_critical(random),
            Kind::Flawed => report.flaw = Some(random.pick(&FLAWS)),
            Kind::Bare => {
                report.parts = None;
                report.di = Some(
                    random.pick(&[0.0, 0.1, 0.3, 0.46, 0.52, 0.7, EDGES[1], EDGES[3], EDGES[5]]),
                );
                report.phase = random.pick(&[Some("stable"), Some("stable"), None]);
            }
        }
        report
    }

    /// A good report whose index is close to `index`, half of the time reported beside its parts.
    pub(crate) fn of_index(random: &mut Random, cycle: Option<u32>, index: f64) -> Self {
        // Parts under their critical marks reach a large index only where coherence is low.
        let scr = (0.62 + 0.38 * random.fraction()).min(1.6 / (3.0 * index));
        let sum = (3.0 * index * scr * (0.96 + 0.04 * random.fraction())).min(1.6);
        let sdi = (sum * random.fraction()).max(sum - 1.1).clamp(0.0, 0.55);
        let pd = ((sum - sdi) * 0.4).max(sum - sdi - 0.65).clamp(0.0, 0.45);
        let parts = Parts { sdi, sv: (sum - sdi - pd).max(0.0), pd, scr };
        let mut report = Self {
            cycle,
            parts: Some(parts),
            di: None,
            phase: Some(random.pick(&["stable", "stable", "Stable", "forming", "FORMING"])),
            stability: random.fraction().mul_add(0.5, 0.5),
            status: random.pick(&[None, Some("nominal")]),
            phase_lock: false,
            recenter: false,
            psi: None,
            psd: None,
            er: None,
            flaw: None,
        };
        report.di = report.formula().filter(|_| random.in_thousand(500));
        report
    }

    /// Parts whose index is one of the marks on paper.
    fn put_on_edge(&mut self, random: &mut Random) {
        let (sum, scr) = random.pick(&EDGE_SUMS);
        let sdi = random.between(sum.saturating_sub(65 + 45), 55);
        let pd = random.between((sum - sdi).saturating_sub(65), 45);
        let hundredths = |count: u64| f64::from(u32::try_from(count).expect("small")) / 100.0;
        let sv = hundredths(sum - sdi - pd);
        self.parts = Some(Parts { sdi: hundredths(sdi), sv, pd: hundredths(pd), scr });
        self.di = None;
    }

    /// Whether the same is read from both, however it is written.
    pub(crate) fn says_the_same_as(&self, other: &Self) -> bool {
        let plain = |report: &Self| Self {
            phase: report.phase.map(|phase| match phase {
                "Stable" => "stable",
                "FORMING" => "forming",
                "Transitional" => "transitional",
                other => other,
            }),
            status: Some(report.status.unwrap_or("nominal")),
            ..report.clone()
        };
        plain(self) == plain(other)
    }

    /// A report of a runtime that is about to collapse: good by its index alone.
    pub(crate) fn weak(random: &mut Random, cycle: Option<u32>) -> Self {
        let mut report = Self::of_index(random, cycle, 0.2);
        report.stability = 0.4;
        report.di = None;
        let is_incoherent = random.in_thousand(500);
        report.parts = Some(Parts {
            sdi: 0.1,
            sv: 0.1,
            pd: if is_incoherent { 0.2 } else { 0.3 },
            scr: if is_incoherent { 0.55 } else { 0.9 },
        });
        report
    }

    /// Leaves nothing but the index.
    pub(crate) fn make_bare(&mut self) {
        self.di = self.index();
        self.parts = None;
    }

    fn make_critical(&mut self, random: &mut Random) {
        let calm = Parts { sdi: 0.1, sv: 0.1, pd: 0.1, scr: 0.9 };
        self.di = None;
        self.parts = Some(match random.below(4) {
            0 => Parts { sdi: 0.6, ..calm },
            1 => Parts { sv: 0.7, ..calm },
            2 => Parts { pd: 0.5, ..calm },
            _ => Parts { scr: 0.4, ..calm },
        });
    }

    /// SRIP-03 section 4 over the reported parts.
    pub(crate) fn formula(&self) -> Option<f64> {
        self.parts.map(|Parts { sdi, sv, pd, scr }| (sdi + sv + pd) / (3.0 * scr))
    }

    /// The larger of formula and reported index.
    pub(crate) fn index(&self) -> Option<f64> {
        match (self.formula(), self.di) {
            (Some(formula), Some(reported)) => Some(formula.max(reported)),
            (formula, reported) => formula.or(reported),
        }
    }

    /// The worst that label and flags say.
    pub(crate) fn stance(&self) -> Stance {
        if self.recenter || self.status == Some("recenter_pending") {
            return Stance::Recenter;
        }
        match self.phase {
            Some("recenter" | "dissolving") => Stance::Recenter,
            Some("reflective" | "Transitional") => Stance::Reflective,
            _ if self.phase_lock => Stance::Reflective,
            Some("stable" | "Stable" | "forming" | "FORMING" | "initializing") => Stance::Stable,
            Some(_) | None => Stance::Unknown,
        }
    }

    pub(crate) fn is_critical(&self) -> bool {
        self.parts.is_some_and(|parts| {
            parts.sdi > 0.55 || parts.sv > 0.65 || parts.pd > 0.45 || parts.scr < 0.45
        })
    }

    /// Whether it may say that the runtime is unstable, rather than that too little is known.
    pub(crate) fn is_unstable(&self, block: f64) -> bool {
        // From nothing to here it may have leapt.
        let mark = block.min(0.4) - 1e-9;
        self.index().is_some_and(|index| index >= mark)
            || self.psi.is_some_and(|psi| psi < 0.6)
            || self.psd.is_some_and(|psd| psd >= 0.15 - 1e-9)
            || self.er.is_some_and(|er| er > 0.3)
            || matches!(self.stance(), Stance::Reflective | Stance::Recenter)
            || self.is_critical()
            || (self.is_weak() && self.stability < 0.5)
    }

    /// SRIP-06 section 5, the metrics' half of collapse.
    pub(crate) fn is_weak(&self) -> bool {
        self.parts.is_some_and(|parts| parts.scr < 0.6 || parts.pd > 0.25)
    }

    pub(crate) fn to_json(&self) -> Json {
        let text = |text: &str| Json::String(text.to_owned());
        let mut attractor = BTreeMap::from([("id".to_owned(), text("a-1"))]);
        attractor.insert("stability".to_owned(), Json::Number(self.stability));
        for (name, number) in [("psi", self.psi), ("psd", self.psd)] {
            attractor.extend(number.map(|number| (name.to_owned(), Json::Number(number))));
        }
        let mut memory = BTreeMap::new();
        memory.extend(self.er.map(|er| ("er".to_owned(), Json::Number(er))));
        attractor.extend(self.phase.map(|phase| ("phase".to_owned(), text(phase))));
        let mut metrics = BTreeMap::new();
        if let Some(parts) = self.parts {
            attractor.insert("scr".to_owned(), Json::Number(parts.scr));
            for (name, number) in [("sdi", parts.sdi), ("sv", parts.sv), ("pd", parts.pd)] {
                metrics.insert(name.to_owned(), Json::Number(number));
            }
        }
        metrics.extend(self.di.map(|di| ("di".to_owned(), Json::Number(di))));
        let mut flags = BTreeMap::new();
        flags.extend(self.status.map(|status| ("aegida_status".to_owned(), text(status))));
        for (name, is_set) in [("phase_lock", self.phase_lock), ("recenter_active", self.recenter)]
        {
            if is_set {
                flags.insert(name.to_owned(), Json::Bool(true));
            }
        }
        let mut document = BTreeMap::new();
        document
            .extend(self.cycle.map(|cycle| ("cycle".to_owned(), Json::Number(f64::from(cycle)))));
        if let Some(flaw) = self.flaw {
            spoil(flaw, &mut document, &mut attractor, &mut metrics, &mut flags);
            if matches!(flaw, Flaw::NotAnObject) {
                return Json::Array(Vec::new());
            }
        }
        document.insert("attractor_state".to_owned(), Json::Object(attractor));
        document.insert("drift_metrics".to_owned(), Json::Object(metrics));
        document.insert("memory_snapshot".to_owned(), Json::Object(memory));
        document.insert("safety_flags".to_owned(), Json::Object(flags));
        Json::Object(document)
    }
}

type Members = BTreeMap<String, Json>;

fn spoil(
    flaw: Flaw,
    document: &mut Members,
    attractor: &mut Members,
    metrics: &mut Members,
    flags: &mut Members,
) {
    match flaw {
        Flaw::ZeroCoherence => drop(attractor.insert("scr".to_owned(), Json::Number(0.0))),
        Flaw::PartMissing => drop(metrics.remove("sv")),
        Flaw::PartOverOne => drop(metrics.insert("pd".to_owned(), Json::Number(1.5))),
        Flaw::PhaseMissing => drop(attractor.remove("phase")),
        Flaw::UnknownKey => drop(metrics.insert("sdl".to_owned(), Json::Number(0.1))),
        Flaw::NearMiss => {
            let flags = BTreeMap::from([("phase_lock".to_owned(), Json::Bool(true))]);
            drop(document.insert("safety_flag".to_owned(), Json::Object(flags)));
        }
        Flaw::UnknownStatus => {
            drop(flags.insert("aegida_status".to_owned(), Json::String("fine".to_owned())));
        }
        Flaw::FractionalCycle => drop(document.insert("cycle".to_owned(), Json::Number(1.5))),
        Flaw::NoMetrics => {
            metrics.clear();
            attractor.remove("scr");
        }
        Flaw::NotAnObject => {}
    }
}
