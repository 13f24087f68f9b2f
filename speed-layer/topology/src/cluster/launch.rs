//! From a topology to what runs it: queues, ackers, executors.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicUsize},
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};

use super::{Running, TopologyStatus, Work};
use crate::{
    acker::{Acker, Ackers},
    clock::Clock,
    collector::OutputCollector,
    context::TaskContext,
    declare::{SYSTEM_COMPONENT, TICK_STREAM},
    executor::{BoltExecutor, BoltTask, Command, Orders, SpoutExecutor, SpoutTask, input_stats},
    grouping::{GroupingContext, Partitioner},
    lineage::TaskId,
    metrics::{ComponentStats, InputStats, OutputStats},
    queue::{QueueReceiver, QueueSender, queue},
    router::{OutStream, Route, Router},
    spout_collector::SpoutOutputCollector,
    topology::{Component, Part, StreamRef, Topology},
};

/// The queues in front of a bolt's executors.
struct Queues {
    receivers: Vec<QueueReceiver>,
    by_task: Vec<(TaskId, QueueSender)>,
}

/// Everything that the executors of a topology share.
struct Launch<'a> {
    name: Arc<str>,
    topology: Arc<Topology>,
    clock: &'a Clock,
    runtime: &'a Handle,
    ackers: Ackers,
    command: Command,
    in_flight: Arc<AtomicUsize>,
    at_work: Arc<AtomicUsize>,
    stats: BTreeMap<String, Arc<ComponentStats>>,
    senders: BTreeMap<String, Vec<(TaskId, QueueSender)>>,
    work: Vec<Work>,
}

/// Starts everything that a topology needs.
pub(super) fn launch(name: &str, topology: Topology, clock: &Clock, runtime: &Handle) -> Running {
    let config = topology.config.clone();
    let active = config.active;
    let (orders, command) = watch::channel(if active { Orders::Work } else { Orders::Wait });
    let mut work = Vec::new();
    let ackers = (0..config.ackers).map(|_| {
        let (sender, messages) = mpsc::unbounded_channel();
        let acker = Acker::new(messages, clock.clone(), config.message_timeout);
        work.push(Work::Task(runtime.spawn(acker.run(Command(command.clone())))));
        sender
    });
    let ackers = Ackers::new(ackers.collect());
    let mut queues: BTreeMap<String, Queues> = BTreeMap::new();
    let mut stats = BTreeMap::new();
    for (id, component) in &topology.components {
        let mut component_stats = component_stats(component);
        if !component.is_spout() {
            let queues_of_component = component_queues(component, &topology);
            let mut seen = None;
            for (task, sender) in &queues_of_component.by_task {
                let executor = executor_of(component, *task);
                if seen != Some(executor) {
                    component_stats.queues.push(sender.gauge());
                    seen = Some(executor);
                }
            }
            queues.insert(id.clone(), queues_of_component);
        }
        stats.insert(id.clone(), Arc::new(component_stats));
    }
    let senders = queues.iter().map(|(id, queues)| (id.clone(), queues.by_task.clone())).collect();
    let topology = Arc::new(topology);
    let in_flight = Arc::new(AtomicUsize::new(0));
    let at_work = Arc::new(AtomicUsize::new(0));
    let mut launch = Launch {
        name: Arc::from(name),
        topology: Arc::clone(&topology),
        clock,
        runtime,
        ackers,
        command: Command(command),
        in_flight: Arc::clone(&in_flight),
        at_work: Arc::clone(&at_work),
        stats: stats.clone(),
        senders,
        work,
    };
    for (id, component) in &topology.components {
        let receivers = queues.remove(id).map(|queues| queues.receivers).unwrap_or_default();
        launch.component(id, component, receivers);
    }
    let status = if active { TopologyStatus::Active } else { TopologyStatus::Inactive };
    Running {
        topology,
        orders,
        status: Mutex::new(status),
        stats,
        in_flight,
        at_work,
        work: Mutex::new(launch.work),
    }
}

/// The executor that runs a task: tasks are dealt out in order, as evenly as can be.
fn executor_of(component: &Component, task: TaskId) -> usize {
    let index = component.tasks.iter().position(|known| *known == task).unwrap_or_default();
    index * component.executors / component.tasks.len()
}

fn component_stats(component: &Component) -> ComponentStats {
    let outputs = component.streams.keys().map(|stream| (stream.clone(), Arc::new(OutputStats::default())));
    let mut inputs: BTreeMap<(String, String), Arc<InputStats>> = component
        .inputs
        .iter()
        .map(|input| ((input.source.component.clone(), input.source.stream.clone()), Arc::default()))
        .collect();
    if component.config.tick.is_some() && !component.is_spout() {
        inputs.insert((SYSTEM_COMPONENT.to_owned(), TICK_STREAM.to_owned()), Arc::default());
    }
    ComponentStats { outputs: outputs.collect(), inputs, ..ComponentStats::default() }
}

fn component_queues(component: &Component, topology: &Topology) -> Queues {
    let rows = component.config.queue_rows.unwrap_or(topology.config.queue_rows);
    let bytes = component.config.queue_bytes.unwrap_or(topology.config.queue_bytes);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..component.executors).map(|_| queue(rows, bytes)).unzip();
    let by_task =
        component.tasks.iter().map(|task| (*task, senders[executor_of(component, *task)].clone())).collect();
    Queues { receivers, by_task }
}

impl Launch<'_> {
    fn component(&mut self, id: &str, component: &Component, receivers: Vec<QueueReceiver>) {
        let mut tasks: Vec<Vec<TaskId>> = vec![Vec::new(); component.executors];
        for task in &component.tasks {
            tasks[executor_of(component, *task)].push(*task);
        }
        let mut receivers = receivers.into_iter();
        for tasks in tasks {
            match (&component.part, receivers.next()) {
                (Part::Spout(make), _) => {
                    let executor = self.spout_executor(id, component, Arc::clone(make), &tasks);
                    self.run(id, component, executor.run());
                }
                (Part::Bolt(make), Some(queue)) => {
                    let executor = BoltExecutor {
                        tasks: tasks.iter().map(|task| self.bolt_task(id, component, *task)).collect(),
                        make: Arc::clone(make),
                        queue,
                        command: self.command.clone(),
                        clock: self.clock.clone(),
                        tick: component.config.tick,
                        batch_rows: self.topology.config.batch_rows,
                        ackers: self.ackers.clone(),
                        stats: Arc::clone(&self.stats[id]),
                        inputs: input_stats(&self.stats[id].inputs),
                        in_flight: Arc::clone(&self.in_flight),
                        ahead: Default::default(),
                    };
                    self.run(id, component, executor.run());
                }
                (Part::Bolt(_), None) => unreachable!("every executor of a bolt has a queue"),
            }
        }
    }

    fn spout_executor(
        &self,
        id: &str,
        component: &Component,
        make: crate::topology::SpoutFactory,
        tasks: &[TaskId],
    ) -> SpoutExecutor {
        let (sender, events) = mpsc::unbounded_channel();
        let config = &self.topology.config;
        let tasks = tasks.iter().map(|task| SpoutTask {
            context: self.context(id, component, *task),
            out: SpoutOutputCollector::new(
                self.router(id, component, *task),
                self.ackers.clone(),
                sender.clone(),
                Arc::clone(&self.stats[id]),
            ),
        });
        SpoutExecutor {
            tasks: tasks.collect(),
            make,
            events,
            command: self.command.clone(),
            max_pending: component.config.max_spout_pending.unwrap_or(config.max_spout_pending),
            linger: config.linger,
            at_work: Arc::clone(&self.at_work),
            stats: Arc::clone(&self.stats[id]),
        }
    }

    fn bolt_task(&self, id: &str, component: &Component, task: TaskId) -> BoltTask {
        let out = OutputCollector::new(self.router(id, component, task));
        BoltTask { context: self.context(id, component, task), out }
    }

    fn context(&self, id: &str, component: &Component, task: TaskId) -> TaskContext {
        TaskContext {
            topology_name: Arc::clone(&self.name),
            topology: Arc::clone(&self.topology),
            component: Arc::from(id),
            task,
            index: component.tasks.iter().position(|known| *known == task).unwrap_or_default(),
            clock: self.clock.clone(),
        }
    }

    /// The way from a task to all who listen to its streams.
    fn router(&self, id: &str, component: &Component, task: TaskId) -> Router {
        let streams = component.streams.iter().map(|(stream, declaration)| {
            let name = StreamRef { component: id.to_owned(), stream: stream.clone() };
            let routes = self.topology.listeners(id, stream).map(|(listener, subscription)| {
                let targets = self.senders[listener].clone();
                let context = GroupingContext {
                    stream: name.clone(),
                    from: task,
                    targets: targets.iter().map(|(task, _)| *task).collect(),
                };
                // The builder has checked that the fields exist.
                let column = |field: &str| declaration.schema.index_of(field).unwrap_or_default();
                Route { targets, partitioner: Partitioner::new(&subscription.grouping, &context, column) }
            });
            OutStream {
                routes: routes.collect(),
                name: Arc::new(name),
                schema: Arc::clone(&declaration.schema),
                direct: declaration.direct,
                stats: Arc::clone(&self.stats[id].outputs[stream]),
                meets: {
                    let others = component.streams.keys().enumerate().filter(|(_, other)| *other != stream);
                    others
                        .filter(|(_, other)| self.topology.meet(id, stream, other))
                        .map(|(at, _)| at)
                        .collect()
                },
            }
        });
        Router {
            task,
            streams: streams.collect(),
            batch_rows: self.topology.config.batch_rows,
            in_flight: Arc::clone(&self.in_flight),
            ids: fastrand::Rng::new(),
            clock: self.clock.clone(),
            ackers: self.ackers.clone(),
            label: None,
            sent: BTreeMap::new(),
        }
    }

    fn run(&mut self, id: &str, component: &Component, work: impl Future<Output = ()> + Send + 'static) {
        if !component.config.own_thread {
            self.work.push(Work::Task(self.runtime.spawn(work)));
            return;
        }
        let runtime = self.runtime.clone();
        let thread = std::thread::Builder::new().name(format!("{}/{id}", self.name));
        // Timers and sockets stay the runtime's; only the calls run here.
        match thread.spawn(move || runtime.block_on(work)) {
            Ok(thread) => self.work.push(Work::Thread(thread)),
            Err(error) => {
                tracing::error!(component = id, %error, "an executor has no thread; its topology will stall")
            }
        }
    }
}
