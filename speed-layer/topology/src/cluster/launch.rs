//! From a topology to what runs it: queues, ackers, executors.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    thread,
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};

use super::{
    ClusterError, Running, TopologyStatus, Work,
    watch::{Failure, watched},
};
use crate::{
    acker::{Acker, Ackers},
    clock::Clock,
    collector::OutputCollector,
    context::TaskContext,
    declare::{SYSTEM_COMPONENT, TICK_STREAM},
    executor::{BoltExecutor, BoltTask, Command, NOBODY, Orders, SpoutExecutor, SpoutTask, input_stats},
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
    failure: Arc<Failure>,
    threads: Threads,
}

/// What a thread does.
type Job = Box<dyn FnOnce() + Send>;
/// Starts threads.
pub(super) type Threads = fn(thread::Builder, Job) -> io::Result<thread::JoinHandle<()>>;

/// Starts everything that a topology needs.
///
/// # Errors
///
/// An executor cannot have a thread of its own. Nothing has begun then.
pub(super) fn launch(
    name: &str,
    topology: Topology,
    clock: &Clock,
    runtime: &Handle,
    threads: Threads,
) -> Result<Running, ClusterError> {
    let config = topology.config.clone();
    let active = config.active;
    // Nothing begins before everything is there. If something cannot be, whoever waits sees that no orders will come.
    let (orders, command) = watch::channel(Orders::Wait);
    let failure = Arc::new(Failure::default());
    let mut work = Vec::new();
    let ackers = (0..config.ackers).map(|_| {
        let (sender, messages) = mpsc::unbounded_channel();
        let acker = Acker::new(messages, clock.clone(), config.message_timeout);
        let acker = acker.run(Command(command.clone()));
        let acker = watched("an acker".to_owned(), acker, Command(command.clone()), Arc::clone(&failure));
        work.push(Work::Task(runtime.spawn(acker)));
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
        failure: Arc::clone(&failure),
        threads,
    };
    for (id, component) in &topology.components {
        let receivers = queues.remove(id).map(|queues| queues.receivers).unwrap_or_default();
        launch.component(id, component, receivers)?;
    }
    if active {
        orders.send_replace(Orders::Work);
    }
    let status = if active { TopologyStatus::Active } else { TopologyStatus::Inactive };
    Ok(Running {
        topology,
        orders,
        status: Mutex::new(status),
        stats,
        in_flight,
        at_work,
        work: tokio::sync::Mutex::new(launch.work),
        failure,
    })
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
    fn component(
        &mut self,
        id: &str,
        component: &Component,
        receivers: Vec<QueueReceiver>,
    ) -> Result<(), ClusterError> {
        let mut tasks: Vec<Vec<TaskId>> = vec![Vec::new(); component.executors];
        for task in &component.tasks {
            tasks[executor_of(component, *task)].push(*task);
        }
        let mut receivers = receivers.into_iter();
        for tasks in tasks {
            match (&component.part, receivers.next()) {
                (Part::Spout(make), _) => {
                    let executor = self.spout_executor(id, component, Arc::clone(make), &tasks);
                    self.run(id, component, executor.run())?;
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
                        at: NOBODY,
                    };
                    self.run(id, component, executor.run())?;
                }
                (Part::Bolt(_), None) => unreachable!("every executor of a bolt has a queue"),
            }
        }
        Ok(())
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
            at: NOBODY,
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

    fn run(
        &mut self,
        id: &str,
        component: &Component,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ClusterError> {
        let what = format!("an executor of `{id}`");
        let work = watched(what, work, self.command.clone(), Arc::clone(&self.failure));
        if !component.config.own_thread {
            self.work.push(Work::Task(self.runtime.spawn(work)));
            return Ok(());
        }
        let runtime = self.runtime.clone();
        // A thread's name cannot hold what ends a string in C.
        let thread = thread::Builder::new().name(format!("{}/{id}", self.name).replace('\0', " "));
        // Timers and sockets stay the runtime's; only the calls run here.
        match (self.threads)(thread, Box::new(move || runtime.block_on(work))) {
            Ok(thread) => {
                self.work.push(Work::Thread(thread));
                Ok(())
            }
            Err(error) => Err(ClusterError::Thread { component: id.to_owned(), why: error.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BasicBolt, BasicOutputCollector, ComponentConfig, PerTuple, TaskError, TopologyBuilder, Tuple,
        fields, testing::FixedSpout,
    };

    struct Nothing;

    impl BasicBolt for Nothing {
        fn execute(&mut self, _: Tuple<'_>, _: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_topology_whose_executor_can_have_no_thread_does_not_begin() {
        let spout =
            FixedSpout::new(fields([("n", arrow::datatypes::DataType::Int64)])).row((1_i64,)).unwrap();
        let mut builder = TopologyBuilder::new();
        let emitting = spout.clone();
        builder.set_spout("a spout", move || emitting.clone(), 2);
        let own = ComponentConfig { own_thread: true, ..ComponentConfig::default() };
        builder.set_bolt("bolt", || PerTuple::new(Nothing), 1).config(own).shuffle_grouping("a spout");
        let submit = |threads: Threads| {
            let topology = builder.build().unwrap();
            launch("a\0b", topology, &Clock::system(), &Handle::current(), threads)
        };
        let refused = submit(|_, _| Err(io::Error::other("too many"))).unwrap_err();
        assert_eq!(refused.to_string(), "an executor of `bolt` can have no thread of its own: too many");
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        assert_eq!(spout.emitted(), 0);
        // Where there are threads, it works, whatever its name.
        let running = submit(|thread, job| thread.spawn(job)).unwrap();
        while !spout.is_done() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        drop(running);
    }
}
