//! How long admission takes: each plugin, and each of the two steps as a whole.

use std::time::Duration;

use registry::{Admit, Operation};

use super::{Histogram, describe};

static BOUNDS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const OPERATIONS: [Operation; 4] =
    [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];
const STEPS: [&str; 2] = ["admit", "validate"];

/// By step, operation and outcome.
type Cells = [[[Histogram<6>; 2]; 4]; 2];

/// Counts admission; the engine tells it.
pub(crate) struct Admission {
    names: Vec<&'static str>,
    /// One more than there are plugins: the last is for whole steps.
    cells: Vec<Cells>,
}

impl Admission {
    /// For these plugins, in the order in which the engine asks them.
    pub(crate) fn new(plugins: &[std::sync::Arc<dyn Admit>]) -> Self {
        let histogram = |_| Histogram::new(&BOUNDS);
        let cell = |_| -> Cells {
            std::array::from_fn(|_| std::array::from_fn(|_| std::array::from_fn(histogram)))
        };
        let names = plugins.iter().map(|plugin| plugin.name()).collect();
        Self { names, cells: (0..=plugins.len()).map(cell).collect() }
    }

    /// Writes metrics.
    pub(crate) fn write(&self, out: &mut String) {
        let name = "apiserver_admission_controller_admission_duration_seconds";
        describe(out, name, "histogram", "Time of one plugin.");
        for (plugin, cells) in self.names.iter().zip(&self.cells) {
            write(out, name, &format!("name=\"{plugin}\","), cells);
        }
        let name = "apiserver_admission_step_admission_duration_seconds";
        describe(out, name, "histogram", "Time of all plugins of a step.");
        self.cells.last().into_iter().for_each(|cells| write(out, name, "", cells));
    }
}

impl registry::Measure for Admission {
    fn admitted(
        &self,
        plugin: Option<usize>,
        validates: bool,
        operation: Operation,
        rejected: bool,
        took: Duration,
    ) {
        let cells = self.cells.get(plugin.unwrap_or(self.names.len()));
        if let Some(cells) = cells {
            let at = OPERATIONS.iter().position(|known| *known == operation).unwrap_or(0);
            cells[usize::from(validates)][at][usize::from(rejected)].observe(took);
        }
    }
}

fn write(out: &mut String, name: &str, labels: &str, cells: &Cells) {
    for (step, cells) in STEPS.iter().zip(cells) {
        for (operation, cells) in OPERATIONS.iter().zip(cells) {
            for (rejected, histogram) in [false, true].iter().zip(cells) {
                let operation = operation.as_str();
                let labels = format!(
                    "{labels}operation=\"{operation}\",rejected=\"{rejected}\",type=\"{step}\""
                );
                histogram.write(out, name, &labels, 0);
            }
        }
    }
}
