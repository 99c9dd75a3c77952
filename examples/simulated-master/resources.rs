//! Sums of resources, as the two schemas write them.

use serde_json::{Value, json};

use crate::task::Task;

/// Ports as ranges, ends included.
#[derive(Default)]
pub(crate) struct Ports(Vec<(u16, u16)>);

impl Ports {
    pub(crate) fn of(numbers: impl IntoIterator<Item = u16>) -> Ports {
        let mut numbers: Vec<u16> = numbers.into_iter().collect();
        numbers.sort_unstable();
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some((_, end)) if number <= end.saturating_add(1) => *end = number,
                _ => ranges.push((number, number)),
            }
        }
        Ports(ranges)
    }

    pub(crate) fn range(begin: u16, end: u16) -> Ports {
        Ports(vec![(begin, end)])
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `"[31000-31001, 31053-31053]"`, as /state writes them.
    pub(crate) fn text(&self) -> String {
        let ranges: Vec<_> = self.0.iter().map(|(begin, end)| format!("{begin}-{end}")).collect();
        format!("[{}]", ranges.join(", "))
    }

    /// The same after other ranges already written so.
    pub(crate) fn beside(&self, written: &str) -> String {
        let own = self.text();
        format!("{}, {}", written.trim_end_matches(']'), own.trim_start_matches('['))
    }

    pub(crate) fn ranges(&self) -> Value {
        let range = |&(begin, end): &(u16, u16)| json!({"begin": begin, "end": end});
        json!({"range": self.0.iter().map(range).collect::<Vec<_>>()})
    }
}

#[derive(Default)]
pub(crate) struct Resources {
    pub(crate) cpus: f64,
    pub(crate) mem: f64,
    pub(crate) disk: f64,
    pub(crate) ports: Ports,
}

impl Resources {
    /// The sum of what these tasks use.
    pub(crate) fn of<'a>(tasks: impl IntoIterator<Item = &'a Task>) -> Resources {
        let (mut cpus, mut mem, mut ports) = (0.0, 0.0, Vec::new());
        for task in tasks {
            cpus += task.app.cpus();
            mem += task.app.mem();
            ports.extend_from_slice(&task.place.ports);
        }
        // Mesos keeps three decimals of a scalar.
        let cpus = (cpus * 1000.0_f64).round() / 1000.0;
        Resources { cpus, mem, disk: 0.0, ports: Ports::of(ports) }
    }

    /// The object /state has, without `ports` where there are none.
    pub(crate) fn summed(&self) -> Value {
        let mut sum = json!({"disk": self.disk, "mem": self.mem, "gpus": 0.0, "cpus": self.cpus});
        if !self.ports.is_empty() {
            sum["ports"] = self.ports.text().into();
        }
        sum
    }

    /// The list the operator API has, without what there is none of.
    pub(crate) fn listed(&self) -> Vec<Value> {
        let scalar =
            |(name, value)| json!({"name": name, "type": "SCALAR", "scalar": {"value": value}});
        let scalars = [("cpus", self.cpus), ("mem", self.mem), ("disk", self.disk)];
        let mut list: Vec<Value> =
            scalars.into_iter().filter(|(_, value)| *value > 0.0).map(scalar).collect();
        if !self.ports.is_empty() {
            list.push(json!({"name": "ports", "type": "RANGES", "ranges": self.ports.ranges()}));
        }
        list
    }
}

/// Each resource of the list as one that no role has reserved.
pub(crate) fn unreserved(list: Vec<Value>) -> Vec<Value> {
    each_with(list, "role", &json!("*"))
}

/// Each resource of the list as one that the default role uses.
pub(crate) fn allocated(list: Vec<Value>) -> Vec<Value> {
    each_with(list, "allocation_info", &json!({"role": "*"}))
}

fn each_with(mut list: Vec<Value>, key: &str, value: &Value) -> Vec<Value> {
    for resource in &mut list {
        resource[key] = value.clone();
    }
    list
}
