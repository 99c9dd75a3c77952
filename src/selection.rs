//! Which frameworks and tasks have names: what is left out by wish is no fault and is not listed.

use crate::cluster::{Framework, Task, Visibility};
use crate::glob::Glob;

/// Chosen frameworks and visibilities; by default all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selection {
    /// Of a task's `discovery`; empty: whatever it is. A task without one has no visibility, and is
    /// left out where any is asked for.
    pub visibility: Vec<Visibility>,
    /// Of a framework's name.
    pub include: Vec<Glob>,
    pub exclude: Vec<Glob>,
}

impl Default for Selection {
    fn default() -> Selection {
        Selection { visibility: Vec::new(), include: vec![Glob::all()], exclude: Vec::new() }
    }
}

impl Selection {
    /// Whether a framework and its tasks may have names.
    pub fn has_framework(&self, framework: &Framework) -> bool {
        let fits = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(&framework.name));
        fits(&self.include) && !fits(&self.exclude)
    }

    /// Whether a task of such a framework may.
    pub fn has_task(&self, task: &Task) -> bool {
        let told = || task.discovery.as_ref().and_then(|discovery| discovery.visibility);
        self.visibility.is_empty() || told().is_some_and(|told| self.visibility.contains(&told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(include: &[&str], exclude: &[&str], name: &str, expected: bool) {
        let globs = |texts: &[&str]| texts.iter().map(|text| Glob::parse(text).unwrap()).collect();
        let selection =
            Selection { include: globs(include), exclude: globs(exclude), ..Selection::default() };
        let framework =
            Framework { name: name.into(), scheduler: None, recovered: false, faults: Vec::new() };
        assert_eq!(selection.has_framework(&framework), expected, "{name}");
    }

    #[test]
    fn what_is_excluded_is_out_whatever_includes_it() {
        check(&["*"], &[], "marathon", true);
        check(&["*"], &["dev-*"], "dev-a", false);
        check(&["dev-*"], &[], "marathon", false);
        check(&["dev-*", "marathon"], &["*-b"], "dev-a", true);
        check(&["dev-*", "marathon"], &["*-b"], "dev-b", false);
        check(&["Marathon"], &[], "marathon", true);
    }
}
