#include "backends/kafka/producer.h"

#include <pthread.h>

#include <algorithm>
#include <set>

#include "backends/kafka/errors.h"
#include "base/text.h"
#include "telemetry/log.h"

namespace prism::kafka {
namespace {

// Records without a key go to one partition for a while, then to the next: they then share requests.
constexpr std::int64_t kKeylessTurnMs = 8;

std::uint32_t keyless_partition(const Topic& topic) {
  static const auto start = static_cast<std::uint64_t>(random_id()[0]);  // processes do not go in step
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch()).count();
  return static_cast<std::uint32_t>((start + static_cast<std::uint64_t>(ms / kKeylessTurnMs)) % topic.partitions);
}

Error too_large(const Topic& topic, std::size_t size) {
  return Error{Code::invalid_argument,
               "RECORD_TOO_LARGE",
               "a record of " + std::to_string(size) + " bytes; topic \"" + shown(topic.name) + "\" takes " +
                   std::to_string(topic.max_record_bytes()),
               "add claim-check to the namespace, or send less",
               Retry::never,
               {},
               {{"topic", topic.name}}};
}

Error earlier_failed(const std::string& key, Retry retry) {
  return Error{Code::aborted,
               "EARLIER_MESSAGE_FAILED",
               "an earlier record of key \"" + shown(key) + "\" in this batch failed",
               "append from the failed one on again, in order",
               retry,
               {},
               {}};
}

}  // namespace

std::size_t Topic::max_record_bytes() const noexcept {
  return max_message_bytes > 2 * kRecordOverhead ? max_message_bytes - kRecordOverhead : max_message_bytes / 2;
}

// What librdkafka gives back with the report on a record.
struct Producer::Entry {
  Op* op = nullptr;
  std::size_t index = 0;
};

// The records of one call. Lives until the last report has come, whoever waits for it.
class Producer::Op {
 public:
  Op(EventLoop& loop, TopicPtr t, Batch<Record> r)
      : topic(std::move(t)),
        records(std::move(r)),
        results(records.size()),
        entries(records.size()),
        shot(std::make_shared<OneShot<void>>(&loop)) {}

  void done(CompletionBatch& batch) {
    if (open.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    const auto last = std::move(self);  // nobody else has a hold on it where the waiter is gone
    batch.add(shot->complete());
  }

  const TopicPtr topic;
  const Batch<Record> records;  // librdkafka refers to their bodies
  Batch<Result<Appended>> results;
  std::vector<Entry> entries;
  const std::shared_ptr<OneShot<void>> shot;
  std::atomic<std::size_t> open{1};  // reports to come, and the one who still adds
  std::shared_ptr<Op> self;
};

Result<std::shared_ptr<Producer>> Producer::open(std::shared_ptr<Connection> connection, EventLoop& loop,
                                                 std::uint64_t batch_bytes) {
  PRISM_TRY(Conf conf, connection->conf());
  const Options& options = connection->options();
  const auto set = [&](const char* name, const std::string& value) {
    char why[256];
    if (rd_kafka_conf_set(conf.get(), name, value.c_str(), why, sizeof why) != RD_KAFKA_CONF_OK)
      log::warn("option of the Kafka client not taken",
                {{"option", std::string_view(name)}, {"error", std::string_view(why)}});
  };
  set("enable.idempotence", "true");
  set("acks", "all");
  set("retry.backoff.ms", "50");
  // A record that is larger than its topic takes has been refused before; the broker has the last word.
  set("message.max.bytes", "1000000000");
  set("batch.size", std::to_string(batch_bytes));
  set("linger.ms", std::to_string(options.linger.count()));
  set("queue.buffering.max.kbytes", std::to_string(std::max<std::uint64_t>(options.buffer_bytes >> 10, 1)));
  set("queue.buffering.max.messages", "1000000");
  static constexpr const char* kCompressions[] = {"none", "gzip", "snappy", "lz4", "zstd"};
  set("compression.codec", kCompressions[static_cast<std::size_t>(options.compression)]);
  set("message.timeout.ms", std::to_string(options.timeouts.operation.count()));
  set("request.timeout.ms", std::to_string(std::clamp<std::int64_t>(options.timeouts.operation.count(), 1, 30'000)));
  rd_kafka_conf_set_events(conf.get(), RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
  std::shared_ptr<Producer> producer(new Producer(connection, loop));
  PRISM_TRY(producer->client_, connection->make(RD_KAFKA_PRODUCER, std::move(conf)));
  producer->queue_.reset(rd_kafka_queue_get_main(producer->client_));
  producer->thread_ = std::thread([raw = producer.get()] { raw->run(); });
  return producer;
}

Producer::~Producer() {
  close(Clock::now());
  handles_.clear();
  queue_.reset();
  if (client_ != nullptr) rd_kafka_destroy(client_);
}

rd_kafka_topic_t* Producer::handle(const std::string& wire) {
  const std::lock_guard lock(mutex_);
  if (closed_) return nullptr;
  TopicHandle& found = handles_[wire];
  if (found == nullptr) found.reset(rd_kafka_topic_new(client_, wire.c_str(), nullptr));
  return found.get();
}

rd_kafka_resp_err_t Producer::produce(rd_kafka_topic_t* handle, Entry& entry, const Record& record,
                                      std::uint32_t partition) {
  HeadersPtr headers = encode_headers(record);
  rd_kafka_vu_t parts[7];
  std::size_t n = 0;
  parts[n].vtype = RD_KAFKA_VTYPE_RKT;
  parts[n++].u.rkt = handle;
  parts[n].vtype = RD_KAFKA_VTYPE_PARTITION;
  parts[n++].u.i32 = static_cast<std::int32_t>(partition);
  parts[n].vtype = RD_KAFKA_VTYPE_MSGFLAGS;
  parts[n++].u.i = 0;  // the body stays where it is until the report
  parts[n].vtype = RD_KAFKA_VTYPE_VALUE;
  // An empty body is no deletion, which is what a missing one means.
  parts[n].u.mem.ptr = const_cast<char*>(record.body.empty() ? "" : record.body.data());  // NOLINT: it is only read
  parts[n++].u.mem.size = record.body.size();
  parts[n].vtype = RD_KAFKA_VTYPE_OPAQUE;
  parts[n++].u.ptr = &entry;
  parts[n].vtype = RD_KAFKA_VTYPE_HEADERS;
  parts[n++].u.headers = headers.get();
  if (!record.key.empty()) {
    parts[n].vtype = RD_KAFKA_VTYPE_KEY;
    parts[n].u.mem.ptr = const_cast<char*>(record.key.data());  // NOLINT: it is only read
    parts[n++].u.mem.size = record.key.size();
  }
  const KafkaError failed(rd_kafka_produceva(client_, parts, n));
  if (failed != nullptr)
    return rd_kafka_error_is_fatal(failed.get()) != 0 ? RD_KAFKA_RESP_ERR__FATAL : rd_kafka_error_code(failed.get());
  (void)headers.release();  // NOLINT(bugprone-unused-return-value): they are the message's now
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

Task<Batch<Result<Appended>>> Producer::append(std::shared_ptr<Producer> self, Context context, TopicPtr topic,
                                               Batch<Record> records) {
  const std::size_t n = records.size();
  auto op = std::make_shared<Op>(self->loop_, topic, std::move(records));
  op->self = op;
  // Keys whose later records must not be appended, and whether it is known that the earlier one was not.
  std::unordered_map<std::string_view, Retry> failed;
  const auto refuse = [&](std::size_t i, Error error) {
    const std::string& key = op->records[i].key;
    if (!key.empty()) failed.emplace(key, error.retry);
    op->results[i] = fail(std::move(error));
  };
  self->producing_.fetch_add(1);
  rd_kafka_topic_t* const handle = self->handle(topic->wire);
  const bool begun = op->shot->begin();
  std::optional<Error> all;
  if (handle == nullptr || !begun) {
    all = error_of(self->connection_->peer(), RD_KAFKA_RESP_ERR__DESTROY);
  } else if (self->broken()) {
    all = self->why_broken();
  } else if (auto admitted = self->connection_->admit(); !admitted) {
    all = std::move(admitted).error();
  } else if (context.stop().stop_requested() || Clock::now() >= context.deadline()) {
    all = context.over(false);
  }
  const std::uint32_t keyless = keyless_partition(*topic);
  for (std::size_t i = 0; i < n; ++i) {
    const Record& record = op->records[i];
    if (all) {
      op->results[i] = fail(*all);
      continue;
    }
    if (record_bytes(record) > topic->max_record_bytes() || wire_bytes(record) > topic->max_message_bytes) {
      refuse(i, too_large(*topic, record_bytes(record)));
      continue;
    }
    if (!failed.empty() && failed.contains(record.key)) {
      op->results[i] = fail(earlier_failed(record.key, Retry::safe));
      continue;
    }
    std::uint32_t partition = keyless;
    if (!record.key.empty()) {
      partition = static_cast<std::uint32_t>(
          rd_kafka_msg_partitioner_murmur2(handle, record.key.data(), record.key.size(),
                                           static_cast<std::int32_t>(topic->partitions), nullptr, nullptr));
    }
    op->entries[i] = {op.get(), i};
    op->open.fetch_add(1, std::memory_order_relaxed);
    const auto code = self->produce(handle, op->entries[i], record, partition);
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) continue;
    op->open.fetch_sub(1, std::memory_order_relaxed);
    refuse(i, self->connection_->error(code));
  }
  self->producing_.fetch_sub(1);
  self->deadlines_.add(context.deadline(), op->shot);
  {
    CompletionBatch batch;
    op->done(batch);
  }
  const Outcome outcome = co_await op->shot->wait(context.stop());
  if (outcome != Outcome::done) {
    // Reports may come at any moment: the results are not ours any more.
    Batch<Result<Appended>> results;
    results.reserve(n);
    for (std::size_t i = 0; i < n; ++i) results.emplace_back(fail(context.over(true)));
    co_return results;
  }
  // Reports come in any order: what was appended after a failed one of its key leaves a gap, which the caller must
  // know.
  failed.clear();
  for (std::size_t i = 0; i < n; ++i) {
    const std::string& key = op->records[i].key;
    if (key.empty()) continue;
    if (!op->results[i]) {
      failed.emplace(key, op->results[i].error().retry);
    } else if (!failed.empty() && failed.contains(key)) {
      op->results[i] = fail(earlier_failed(key, Retry::unknown_outcome));
    }
  }
  co_return std::move(op->results);
}

void Producer::reported(rd_kafka_event_t* event, CompletionBatch& batch) {
  while (const rd_kafka_message_t* message = rd_kafka_event_message_next(event)) {
    auto* const entry = static_cast<Entry*>(message->_private);
    Op& op = *entry->op;
    if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
      connection_->answered();
      op.results[entry->index] = Appended{.at = op.topic->position(static_cast<std::uint32_t>(message->partition),
                                                                   static_cast<std::uint64_t>(message->offset)),
                                          .durability = op.topic->durability(),
                                          .duplicate = false};
    } else {
      const bool unsent = rd_kafka_message_status(message) == RD_KAFKA_MSG_STATUS_NOT_PERSISTED;
      const auto code = broken_.load() ? RD_KAFKA_RESP_ERR__FATAL : message->err;
      Error error =
          connection_->error(code, rd_kafka_err2str(message->err), unsent ? Retry::safe : Retry::unknown_outcome);
      if (error.reason == "TOPIC_NOT_FOUND") error = topic_not_found(op.topic->name);
      op.results[entry->index] = fail(std::move(error));
    }
    op.done(batch);
  }
}

void Producer::look_for_the_end() {
  char why[512];
  const auto code = rd_kafka_fatal_error(client_, why, sizeof why);
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR || broken_.exchange(true)) return;
  log::warn("Kafka producer cannot go on", {{"backend", connection_->peer().backend},
                                            {"reason", std::string_view(rd_kafka_err2name(code))},
                                            {"error", std::string_view(why)}});
}

Error Producer::why_broken() const {
  char why[512];
  Error error = connection_->error(rd_kafka_fatal_error(client_, why, sizeof why), why);
  return error.code == Code::permission_denied ? error : connection_->error(RD_KAFKA_RESP_ERR__FATAL, why);
}

void Producer::run() {
  pthread_setname_np(pthread_self(), "kafka-producer");
  while (true) {
    const auto now = Clock::now();
    const auto next = deadlines_.next(now + std::chrono::milliseconds(100));
    Event event(rd_kafka_queue_poll(queue_.get(), until(next)));
    CompletionBatch batch;
    for (int i = 0; event != nullptr && i < 100; ++i) {
      switch (rd_kafka_event_type(event.get())) {
        case RD_KAFKA_EVENT_DR:
          reported(event.get(), batch);
          break;
        case RD_KAFKA_EVENT_ERROR: {
          const char* const text = rd_kafka_event_error_string(event.get());
          connection_->note(rd_kafka_event_error(event.get()), text != nullptr ? text : "");
          look_for_the_end();
          break;
        }
        default:
          break;
      }
      event.reset(rd_kafka_queue_poll(queue_.get(), 0));
    }
    deadlines_.expire(Clock::now(), batch);
    if (event == nullptr && stopping_.load() && rd_kafka_outq_len(client_) == 0) return;
  }
}

void Producer::close(Clock::time_point deadline) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
  }
  if (client_ == nullptr) return;
  while (producing_.load() != 0) std::this_thread::yield();
  const auto idle = [&] { return rd_kafka_outq_len(client_) == 0; };
  while (!idle() && Clock::now() < deadline) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  if (!idle()) rd_kafka_purge(client_, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
  stopping_.store(true);
  rd_kafka_queue_yield(queue_.get());
  if (thread_.joinable()) thread_.join();
}

}  // namespace prism::kafka
