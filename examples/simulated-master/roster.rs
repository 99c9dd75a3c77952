//! The running tasks, found by number, by name, by agent and at random, none of it by walking over all.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::task::Task;

#[derive(Default)]
pub(crate) struct Roster {
    tasks: Vec<Arc<Task>>,
    /// Where in the list the task of this number is.
    places: HashMap<u64, usize>,
    by_name: HashMap<String, BTreeSet<u64>>,
    by_agent: HashMap<usize, BTreeSet<u64>>,
}

impl Roster {
    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.iter()
    }

    /// The task at this place of the list, which changes with every task that ends.
    pub(crate) fn at(&self, place: usize) -> &Arc<Task> {
        &self.tasks[place]
    }

    /// The tasks of a name, the oldest first.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &Arc<Task>> {
        self.numbered(self.by_name.get(name))
    }

    /// The tasks of an agent, the oldest first.
    pub(crate) fn on_agent(&self, agent: usize) -> impl Iterator<Item = &Arc<Task>> {
        self.numbered(self.by_agent.get(&agent))
    }

    fn numbered<'a>(
        &'a self,
        numbers: Option<&'a BTreeSet<u64>>,
    ) -> impl Iterator<Item = &'a Arc<Task>> {
        numbers.into_iter().flatten().map(|number| &self.tasks[self.places[number]])
    }

    pub(crate) fn insert(&mut self, task: Arc<Task>) {
        self.places.insert(task.number, self.tasks.len());
        self.by_name.entry(task.app.name.clone()).or_default().insert(task.number);
        self.by_agent.entry(task.place.agent).or_default().insert(task.number);
        self.tasks.push(task);
    }

    /// Puts the task in the place of the one with its number, whose name and agent are the same.
    pub(crate) fn replace(&mut self, task: Arc<Task>) {
        if let Some(&place) = self.places.get(&task.number) {
            self.tasks[place] = task;
        }
    }

    pub(crate) fn remove(&mut self, task: &Task) {
        let Some(place) = self.places.remove(&task.number) else { return };
        self.tasks.swap_remove(place);
        if let Some(moved) = self.tasks.get(place) {
            self.places.insert(moved.number, place);
        }
        if let Some(numbers) = self.by_name.get_mut(&task.app.name) {
            numbers.remove(&task.number);
            if numbers.is_empty() {
                self.by_name.remove(&task.app.name);
            }
        }
        if let Some(numbers) = self.by_agent.get_mut(&task.place.agent) {
            numbers.remove(&task.number);
        }
    }
}
