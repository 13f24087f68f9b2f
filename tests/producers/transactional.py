"""Sends lines to a Kafka topic in transactions.

Reads orders from standard input: `commit <count>` or `abort <count>`, then that many lines. Answers `ok` to each order
once the transaction is committed or aborted. An order whose transaction fails on the way is tried again as a whole.
"""

import sys

from confluent_kafka import KafkaException, Producer

brokers, topic, partitions = sys.argv[1], sys.argv[2], int(sys.argv[3])
producer = Producer({
    "bootstrap.servers": brokers,
    "transactional.id": "stratus-test-" + topic,
    "transaction.timeout.ms": 60000,
    "linger.ms": 5,
})


def patiently(call):
    """Calls again for as long as the client says that this may help."""
    while True:
        try:
            return call(30)
        except KafkaException as failure:
            if not failure.args[0].retriable():
                raise


def send(lines, commit):
    producer.begin_transaction()
    for number, line in enumerate(lines):
        while True:
            try:
                producer.produce(topic, line, partition=number % partitions)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    # What is aborted has been in the log: that is what readers must leave out.
    producer.flush()
    patiently(producer.commit_transaction if commit else producer.abort_transaction)


patiently(producer.init_transactions)
orders = sys.stdin.buffer
while order := orders.readline():
    what, count = order.split()
    lines = [orders.readline().rstrip(b"\n") for _ in range(int(count))]
    while True:
        try:
            send(lines, what == b"commit")
            break
        except KafkaException as failure:
            if not failure.args[0].txn_requires_abort():
                raise
            patiently(producer.abort_transaction)
    print("ok", flush=True)
