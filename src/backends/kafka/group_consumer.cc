#include "backends/kafka/group_consumer.h"

#include <pthread.h>

#include <algorithm>
#include <functional>

#include "backends/kafka/errors.h"
#include "base/text.h"
#include "base/varint.h"
#include "telemetry/log.h"

namespace prism::kafka {
namespace {

constexpr auto kPoll = std::chrono::milliseconds(100);
constexpr auto kNoteDeliveriesAfter = std::chrono::milliseconds(200);
constexpr auto kCommitRetry = std::chrono::milliseconds(100);
constexpr auto kLookForMoves = std::chrono::seconds(1);
constexpr auto kLastCommit = std::chrono::seconds(5);  // what a partition that is given back waits for it
constexpr auto kClose = std::chrono::seconds(10);
constexpr auto kAsk = std::chrono::seconds(5);
constexpr auto kTopicSpreads = std::chrono::seconds(10);
constexpr std::size_t kPrefetchBytes = 8UL << 20;
constexpr std::size_t kMaxDeliveries = 10'000;  // of one receive()
constexpr int kEventsPerTurn = 1'000;

struct Token {
  std::uint64_t nonce, partition, epoch, serial, offset;
};
std::optional<Token> parse_token(std::string_view text) noexcept {
  const auto nonce = take_varint(text);
  const auto partition = nonce ? take_varint(text) : std::nullopt;
  const auto epoch = partition ? take_varint(text) : std::nullopt;
  const auto serial = epoch ? take_varint(text) : std::nullopt;
  const auto offset = serial ? take_varint(text) : std::nullopt;
  if (!offset || !text.empty()) return std::nullopt;
  return Token{*nonce, *partition, *epoch, *serial, *offset};
}

std::uint64_t random_nonce() {
  const Id128 id = random_id();
  std::uint64_t out = 0;
  for (int i = 0; i < 4; ++i) out = out << 8 | static_cast<std::uint64_t>(id[static_cast<std::size_t>(i)]);
  return out;
}

std::uint64_t key_id(const std::string& key) {
  return key.empty() ? 0 : std::max<std::uint64_t>(std::hash<std::string_view>()(key), 1);
}

Progress progress_from(std::uint64_t offset) {
  Progress progress;
  progress.acked = AckSet(offset);
  progress.delivered_below = offset;
  return progress;
}

// What a record takes in memory, about.
std::size_t weight(const Record& record) noexcept { return record_bytes(record) + 256 + 64 * record.headers.size(); }

std::vector<std::uint32_t> partitions_of(const rd_kafka_topic_partition_list_t* list) {
  std::vector<std::uint32_t> out;
  for (int i = 0; list != nullptr && i < list->cnt; ++i)
    out.push_back(static_cast<std::uint32_t>(list->elems[i].partition));
  return out;
}

}  // namespace

std::string seek_group(const std::string& wire_group) { return std::string(kInternalPrefix) + ".seek." + wire_group; }

Result<std::vector<std::uint64_t>> resolve(Admin& admin, const Topic& topic, const Start& start,
                                           Clock::time_point deadline) {
  if (std::holds_alternative<Latest>(start.at))
    return admin.offsets(topic.wire, topic.partitions, RD_KAFKA_OFFSET_END, deadline);
  if (const auto* time = std::get_if<WallTime>(&start.at)) {
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(time->time_since_epoch()).count();
    return admin.offsets(topic.wire, topic.partitions, std::max<std::int64_t>(ms, 0), deadline);
  }
  PRISM_TRY(auto from, admin.offsets(topic.wire, topic.partitions, RD_KAFKA_OFFSET_BEGINNING, deadline));
  const auto* position = std::get_if<Position>(&start.at);
  if (position == nullptr || position->empty()) return from;
  PRISM_TRY(const auto ends, admin.offsets(topic.wire, topic.partitions, RD_KAFKA_OFFSET_END, deadline));
  for (const auto& part : position->parts()) {
    if (part.source != topic.incarnation || part.partition >= topic.partitions) continue;
    from[part.partition] = std::clamp(part.offset + 1, from[part.partition], ends[part.partition]);
  }
  return from;
}

Consumer::Consumer(std::shared_ptr<Connection> connection, EventLoop& loop, TopicPtr topic, std::string wire_group,
                   GroupSpec spec)
    : connection_(std::move(connection)),
      loop_(loop),
      topic_(std::move(topic)),
      wire_group_(std::move(wire_group)),
      spec_(std::move(spec)),
      nonce_(random_nonce()),
      wake_(loop) {}

DeliveryWindow::Limits Consumer::limits() const {
  DeliveryWindow::Limits limits;
  limits.max_per_key = std::max<std::size_t>(spec_.max_per_key, 1);
  limits.ack_deadline = spec_.ack_deadline;
  limits.max_records = limits.max_ranges = kWindowRecords;
  return limits;
}

std::size_t Consumer::buffer_limit() const noexcept { return spec_.max_bytes + kPrefetchBytes; }

Consumer::Owned* Consumer::find(std::uint32_t partition, std::uint64_t epoch) {
  const auto it = owned_.find(partition);
  if (it == owned_.end() || it->second.given_up || it->second.window.epoch() != epoch) return nullptr;
  return &it->second;
}

std::string Consumer::make_token(std::uint32_t partition, std::uint64_t offset, std::uint64_t epoch,
                                 std::uint32_t serial) const {
  std::string token;
  put_varint(token, nonce_);
  put_varint(token, partition);
  put_varint(token, epoch);
  put_varint(token, serial);
  put_varint(token, offset);
  return token;
}

Result<void> Consumer::start() {
  const Options& options = connection_->options();
  PRISM_TRY(Conf conf, connection_->conf(spec_.client.empty() ? "prism" : "prism " + made_visible(spec_.client)));
  std::optional<std::string> refused;
  const auto set = [&](const char* name, const std::string& value) {
    char why[256];
    if (rd_kafka_conf_set(conf.get(), name, value.c_str(), why, sizeof why) != RD_KAFKA_CONF_OK) refused = why;
  };
  set("group.id", wire_group_);
  set("enable.auto.commit", "false");
  set("enable.auto.offset.store", "false");
  set("enable.partition.eof", "true");
  set("auto.offset.reset", "earliest");
  set("partition.assignment.strategy", "cooperative-sticky");
  set("session.timeout.ms", std::to_string(options.session_timeout.count()));
  set("heartbeat.interval.ms", std::to_string(options.heartbeat.count()));
  set("max.poll.interval.ms", std::to_string(std::max<std::int64_t>(300'000, options.session_timeout.count())));
  set("queued.max.messages.kbytes", std::to_string(kPrefetchBytes >> 10));
  set("fetch.error.backoff.ms", "50");
  if (refused) return fail(connection_->error(RD_KAFKA_RESP_ERR__INVALID_ARG, *refused));
  rd_kafka_conf_set_events(conf.get(), RD_KAFKA_EVENT_FETCH | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_REBALANCE |
                                           RD_KAFKA_EVENT_OFFSET_COMMIT);
  PRISM_TRY(client_, connection_->make(RD_KAFKA_CONSUMER, std::move(conf)));
  rd_kafka_poll_set_consumer(client_);
  queue_.reset(rd_kafka_queue_new(client_));
  {
    const Queue of_group(rd_kafka_queue_get_consumer(client_));
    rd_kafka_queue_forward(of_group.get(), queue_.get());
  }
  PartitionList topics;
  rd_kafka_topic_partition_list_add(topics.get(), topic_->wire.c_str(), RD_KAFKA_PARTITION_UA);
  const auto code = rd_kafka_subscribe(client_, topics.get());
  connection_->threads().start([self = shared_from_this()] { self->run(); });
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) return {};
  abandon();
  return fail(connection_->error(code));
}

// --- the thread ---

void Consumer::run() {
  pthread_setname_np(pthread_self(), "kafka-consumer");
  while (true) {
    auto next = Clock::now() + kPoll;
    {
      const std::lock_guard lock(mutex_);
      if (write_due_) next = std::min(next, *write_due_);
    }
    next = deadlines_.next(next);
    Event event(rd_kafka_queue_poll(queue_.get(), until(next)));
    std::vector<Incoming> got;
    for (int i = 0; event != nullptr; ++i) {
      handle(event.get(), got);
      event.reset(i < kEventsPerTurn ? rd_kafka_queue_poll(queue_.get(), 0) : nullptr);
    }
    if (!got.empty()) take(std::move(got));
    const auto now = Clock::now();
    if (leaving_.load() && !closing_since_ && may_close(now)) {
      closing_since_ = now;
      if (gone_) break;
      const KafkaError failed(rd_kafka_consumer_close_queue(client_, queue_.get()));
      if (failed != nullptr) break;
    }
    {
      CompletionBatch batch;
      keep(now, batch);
    }
    if (closing_since_ && (rd_kafka_consumer_closed(client_) != 0 || now - *closing_since_ > kClose)) break;
  }
  finish();
}

// librdkafka before 2.1.1 aborts the process when a client is destroyed between joining a group and its first
// assignment (its sticky assignor then has no state): that is waited for.
bool Consumer::may_close(Clock::time_point now) {
  if (!leaving_since_) leaving_since_ = now;
  return ever_assigned_ || gone_ || connection_->trouble() || now - *leaving_since_ > kClose;
}

void Consumer::handle(rd_kafka_event_t* event, std::vector<Incoming>& got) {
  switch (rd_kafka_event_type(event)) {
    case RD_KAFKA_EVENT_FETCH:
      while (const rd_kafka_message_t* message = rd_kafka_event_message_next(event)) {
        if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) continue;
        got.push_back({static_cast<std::uint32_t>(message->partition), static_cast<std::uint64_t>(message->offset),
                       decode_record(*message)});
      }
      connection_->answered();
      return;
    case RD_KAFKA_EVENT_REBALANCE:
      if (!got.empty()) take(std::exchange(got, {}));
      if (rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        ever_assigned_ = true;
        assigned(rd_kafka_event_topic_partition_list(event));
      } else {
        revoked(rd_kafka_event_topic_partition_list(event));
      }
      return;
    case RD_KAFKA_EVENT_OFFSET_COMMIT:
      committed(event);
      return;
    case RD_KAFKA_EVENT_ERROR: {
      const auto code = rd_kafka_event_error(event);
      if (code == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        if (auto* const at = rd_kafka_event_topic_partition(event)) {
          if (at->offset >= 0) {
            got.push_back(
                {static_cast<std::uint32_t>(at->partition), static_cast<std::uint64_t>(at->offset), {}, true});
          }
          rd_kafka_topic_partition_destroy(at);
        }
        connection_->answered();
        return;
      }
      const char* const text = rd_kafka_event_error_string(event);
      connection_->note(code, text != nullptr ? text : "");
      if (is_transient(code) || is_fenced(code)) return;
      // Brokers hear of a new topic one after the other.
      if (code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART && Clock::now() - started_ < kTopicSpreads) return;
      Error error = connection_->error(code, text != nullptr ? text : "");
      if (error.reason == "TOPIC_NOT_FOUND") error = topic_not_found(topic_->name);
      {
        const std::lock_guard lock(mutex_);
        error_ = std::move(error);
      }
      wake_.notify();
      return;
    }
    default:
      return;
  }
}

void Consumer::take(std::vector<Incoming> got) {
  {
    const std::lock_guard lock(mutex_);
    for (Incoming& item : got) {
      const auto it = owned_.find(item.partition);
      if (it == owned_.end()) continue;
      buffered_ += weight(item.record);
      it->second.waiting.push_back(std::move(item));
    }
  }
  wake_.notify();
}

void Consumer::feed(Owned& owned, DeliveryBudget& budget, Clock::time_point now,
                    std::vector<DeliveryWindow::Handed>& handed) {
  DeliveryWindow& window = owned.window;
  Incoming item = std::move(owned.waiting.front());
  owned.waiting.pop_front();
  const std::size_t size = weight(item.record);
  buffered_ -= size;
  if (item.end) {
    window.gone_below(item.offset);
    return;
  }
  if (owned.fresh && item.offset < window.progress().acked.below()) {
    // The log is shorter than the group has come: what is there now was never seen.
    log::warn(
        "log was cut below what a group had acknowledged: it begins again there",
        {{"topic", topic_->name}, {"group", spec_.group}, {"partition", item.partition}, {"offset", item.offset}});
    window = DeliveryWindow(++epochs_, progress_from(item.offset), limits());
    owned.uncommitted = true;
  }
  owned.fresh = false;
  if (item.offset < window.next_fetch()) return;
  window.fetched(item.offset, key_id(item.record.key), record_bytes(item.record), budget, now, serial_, handed);
  if (window.progress().acked.contains(item.offset)) return;
  owned.records.emplace(item.offset, Stored{std::move(item.record), size});
  buffered_ += size;
}

void Consumer::assigned(const rd_kafka_topic_partition_list_t* partitions) {
  const std::vector<std::uint32_t> mine = partitions_of(partitions);
  std::uint32_t count = topic_->partitions;
  for (const std::uint32_t p : mine) count = std::max(count, p + 1);
  Admin admin(*connection_);
  std::vector<Admin::GroupOffset> held;
  std::vector<Admin::GroupOffset> moves;
  std::vector<std::uint64_t> starts;
  // Nothing else can be done before this is known. Heartbeats go on meanwhile.
  for (bool known = mine.empty(); !known && !leaving_.load();) {
    const auto deadline = Clock::now() + kAsk;
    const auto ask = [&]() -> Result<void> {
      PRISM_TRY(held, admin.committed(wire_group_, topic_->wire, count, deadline));
      PRISM_TRY(moves, admin.committed(seek_group(wire_group_), topic_->wire, count, deadline));
      const bool fresh = std::any_of(mine.begin(), mine.end(), [&](auto p) { return !held[p].offset; });
      if (!fresh) return {};
      Topic now = *topic_;
      now.partitions = count;
      PRISM_TRY(starts, resolve(admin, now, spec_.start, deadline));
      return {};
    };
    if (auto asked = ask()) {
      known = true;
    } else {
      {
        const std::lock_guard lock(mutex_);
        if (asked.error().retry == Retry::never) error_ = asked.error();
      }
      wake_.notify();
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
  }
  PartitionList list;
  {
    const std::lock_guard lock(mutex_);
    if (!held.empty()) error_.reset();  // what was wrong before is not any more
    for (const std::uint32_t p : mine) {
      if (held.empty()) {  // leaving: it is given back at once
        list.add(topic_->wire, p, RD_KAFKA_OFFSET_END);
        continue;
      }
      Committed from =
          held[p].offset ? decode_progress(*held[p].offset, held[p].metadata) : Committed{progress_from(starts[p]), {}};
      bool uncommitted = !held[p].offset;
      const auto move = moves[p].offset ? from_hex(moves[p].metadata) : std::nullopt;
      if (move && from.seek != move) {
        from = {progress_from(*moves[p].offset), move};
        uncommitted = true;
      }
      Owned owned{.window = DeliveryWindow(++epochs_, std::move(from.progress), limits()), .seek = from.seek};
      owned.uncommitted = uncommitted;
      owned.durable_version = owned.window.version();
      list.add(topic_->wire, p, static_cast<std::int64_t>(owned.window.next_fetch()));
      owned_.insert_or_assign(p, std::move(owned));
    }
  }
  const KafkaError failed(rd_kafka_incremental_assign(client_, list.get()));
  if (failed != nullptr)
    log::warn("partitions could not be taken", {{"topic", topic_->name},
                                                {"group", spec_.group},
                                                {"error", std::string_view(rd_kafka_error_string(failed.get()))}});
  log::debug("partitions taken", {{"topic", topic_->name}, {"group", spec_.group}, {"count", mine.size()}});
}

void Consumer::revoked(const rd_kafka_topic_partition_list_t* partitions) {
  const bool lost = rd_kafka_assignment_lost(client_) != 0;
  log::debug("partitions are to be given back",
             {{"topic", topic_->name}, {"group", spec_.group}, {"state", std::string_view(lost ? "lost" : "held")}});
  CompletionBatch batch;
  revoking_ = partitions_of(partitions);
  const auto now = Clock::now();
  revoking_since_ = now;
  {
    const std::lock_guard lock(mutex_);
    for (const std::uint32_t p : revoking_) {
      const auto it = owned_.find(p);
      if (it == owned_.end()) continue;
      if (lost) {
        drop(p, Settled::stale, batch);
      } else {
        it->second.drain_until = leaving_.load() ? now : now + connection_->options().drain;
      }
    }
  }
  gone_ = lost && !connection_->options().rejoins;
  wake_.notify_into(batch);
}

void Consumer::unassign() {
  PartitionList list;
  for (const std::uint32_t p : revoking_) list.add(topic_->wire, p);
  revoking_since_.reset();
  revoking_.clear();
  const KafkaError failed(rd_kafka_incremental_unassign(client_, list.get()));
  if (failed == nullptr) return;
  log::warn("partitions could not be given back one by one",
            {{"topic", topic_->name},
             {"group", spec_.group},
             {"error", std::string_view(rd_kafka_error_string(failed.get()))}});
  rd_kafka_assign(client_, nullptr);
}

// --- commits ---

void Consumer::answer(std::vector<Ack>& acks, Settled how, CompletionBatch& batch) {
  for (Ack& ack : acks) {
    ack.waiter->results[ack.index] = how;
    if (--ack.waiter->open == 0) batch.add(ack.waiter->shot->complete());
  }
  acks.clear();
}

void Consumer::drop(std::uint32_t partition, Settled how, CompletionBatch& batch) {
  const auto it = owned_.find(partition);
  if (it == owned_.end()) return;
  Owned& owned = it->second;
  answer(owned.acks, how, batch);
  for (const auto& [offset, stored] : owned.records) buffered_ -= stored.weight;
  for (const Incoming& item : owned.waiting) buffered_ -= weight(item.record);
  owned_.erase(it);
}

void Consumer::commit_if_due(Clock::time_point now) {
  if (commit_ || client_ == nullptr || now < next_commit_) return;
  const auto dirty = [](const Owned& owned) {
    return owned.uncommitted || owned.window.version() != owned.durable_version;
  };
  const bool noting = write_due_ && *write_due_ <= now;
  const bool due = std::any_of(owned_.begin(), owned_.end(), [&](const auto& o) {
    const Owned& owned = o.second;
    return !owned.acks.empty() || owned.uncommitted || (dirty(owned) && (noting || owned.given_up));
  });
  if (noting) write_due_.reset();
  if (!due) return;
  Commit commit;
  PartitionList list;
  for (auto& [p, owned] : owned_) {
    for (const Ack& ack : owned.acks) owned.window.record_ack(ack.offset);
    if (!dirty(owned)) continue;
    list.add(topic_->wire, p, static_cast<std::int64_t>(owned.window.progress().acked.below()),
             encode_progress({owned.window.progress(), owned.seek}));
    commit.parts.push_back({p, owned.window.epoch(), owned.window.version(), std::exchange(owned.acks, {})});
  }
  if (rd_kafka_commit_queue(client_, list.get(), queue_.get(), nullptr, nullptr) == RD_KAFKA_RESP_ERR_NO_ERROR) {
    commit_ = std::move(commit);
    return;
  }
  for (auto& part : commit.parts) owned_.at(part.partition).acks = std::move(part.acks);
  next_commit_ = now + kCommitRetry;
}

void Consumer::committed(rd_kafka_event_t* event) {
  const auto code = rd_kafka_event_error(event);
  const auto* const list = rd_kafka_event_topic_partition_list(event);
  const auto code_of = [&](std::uint32_t partition) {
    for (int i = 0; list != nullptr && i < list->cnt; ++i) {
      if (static_cast<std::uint32_t>(list->elems[i].partition) == partition &&
          list->elems[i].err != RD_KAFKA_RESP_ERR_NO_ERROR)
        return list->elems[i].err;
    }
    return code;
  };
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) connection_->answered();
  CompletionBatch batch;
  const auto now = Clock::now();
  const std::lock_guard lock(mutex_);
  if (!commit_) return;
  Commit commit = std::move(*commit_);
  commit_.reset();
  for (auto& part : commit.parts) {
    const auto at = code_of(part.partition);
    const auto it = owned_.find(part.partition);
    Owned* const owned = it != owned_.end() && it->second.window.epoch() == part.epoch ? &it->second : nullptr;
    if (at == RD_KAFKA_RESP_ERR_NO_ERROR) {
      if (owned != nullptr) {
        owned->durable_version = std::max(owned->durable_version, part.version);
        owned->uncommitted = false;
        for (const Ack& ack : part.acks) {
          owned->window.finish_ack(ack.offset);
          if (const auto stored = owned->records.find(ack.offset); stored != owned->records.end()) {
            buffered_ -= stored->second.weight;
            owned->records.erase(stored);
          }
        }
      }
      answer(part.acks, Settled::ok, batch);
      continue;
    }
    if (owned == nullptr) {
      answer(part.acks, is_fenced(at) ? Settled::stale : Settled::unknown, batch);
      continue;
    }
    if (is_transient(at)) {
      owned->acks.insert(owned->acks.begin(), std::make_move_iterator(part.acks.begin()),
                         std::make_move_iterator(part.acks.end()));
      next_commit_ = now + kCommitRetry;
      continue;
    }
    for (const Ack& ack : part.acks) owned->window.cancel_ack(ack.offset, now);
    answer(part.acks, is_fenced(at) ? Settled::stale : Settled::unknown, batch);
    if (is_fenced(at)) {
      owned->uncommitted = false;  // it is another's, or will be: nothing is to be added
      owned->durable_version = owned->window.version();
      continue;
    }
    next_commit_ = now + std::chrono::seconds(1);
    log::error("acknowledgements cannot be committed",
               {{"topic", topic_->name},
                {"group", spec_.group},
                {"partition", part.partition},
                {"error", std::string_view(rd_kafka_err2str(at))},
                {"hint", std::string_view(at == RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE
                                              ? "let the brokers' offset.metadata.max.bytes be 4096 or more"
                                              : "")}});
  }
  commit_if_due(now);
  wake_.notify_into(batch);
}

void Consumer::keep(Clock::time_point now, CompletionBatch& batch) {
  deadlines_.expire(now, batch);
  bool ready = false;
  {
    const std::lock_guard lock(mutex_);
    const bool dirty = std::any_of(owned_.begin(), owned_.end(),
                                   [](const auto& o) { return o.second.window.version() != o.second.durable_version; });
    if (dirty && !write_due_) write_due_ = now + kNoteDeliveriesAfter;
    if (revoking_since_ && !gone_) {
      ready = true;
      const bool late = now - *revoking_since_ > connection_->options().drain + kLastCommit;
      for (const std::uint32_t p : revoking_) {
        const auto it = owned_.find(p);
        if (it == owned_.end()) continue;
        Owned& owned = it->second;
        if (!owned.given_up)
          owned.given_up = owned.window.in_flight() == 0 || now >= owned.drain_until || leaving_.load();
        const bool clean = owned.acks.empty() && !owned.uncommitted && owned.window.version() == owned.durable_version;
        ready = ready && owned.given_up && (clean || late);
      }
    }
    commit_if_due(now);
    ready = ready && !commit_;
    if (ready) {
      for (const std::uint32_t p : revoking_) drop(p, Settled::stale, batch);
    }
  }
  if (ready) unassign();
  if (!closing_since_ && !gone_) {
    pause_or_resume();
    if (check_moves_.exchange(false) || now >= next_move_check_) {
      watch_moves();
      next_move_check_ = Clock::now() + kLookForMoves;
    }
  }
}

void Consumer::pause_or_resume() {
  PartitionList pause;
  PartitionList resume;
  {
    const std::lock_guard lock(mutex_);
    for (auto& [p, owned] : owned_) {
      if (owned.paused) {
        if (buffered_ > buffer_limit() / 2) continue;
        resume.add(topic_->wire, p);
      } else {
        if (buffered_ <= buffer_limit()) continue;
        pause.add(topic_->wire, p);
      }
      owned.paused = !owned.paused;
    }
  }
  if (pause.size() != 0) rd_kafka_pause_partitions(client_, pause.get());
  if (resume.size() != 0) rd_kafka_resume_partitions(client_, resume.get());
}

void Consumer::watch_moves() {
  if (connection_->trouble()) return;  // later
  {
    const std::lock_guard lock(mutex_);
    if (owned_.empty() || revoking_since_) return;
  }
  Admin admin(*connection_);
  const auto moves = admin.committed(seek_group(wire_group_), topic_->wire, topic_->partitions,
                                     Clock::now() + std::chrono::seconds(2));
  if (!moves) return;  // it is asked again soon
  PartitionList list;
  {
    CompletionBatch batch;
    const std::lock_guard lock(mutex_);
    for (auto& [p, owned] : owned_) {
      if (p >= moves->size() || !(*moves)[p].offset) continue;
      const auto move = from_hex((*moves)[p].metadata);
      if (!move || owned.seek == move) continue;
      answer(owned.acks, Settled::stale, batch);
      for (const auto& [offset, stored] : owned.records) buffered_ -= stored.weight;
      for (const Incoming& item : owned.waiting) buffered_ -= weight(item.record);
      Owned moved{.window = DeliveryWindow(++epochs_, progress_from(*(*moves)[p].offset), limits()), .seek = move};
      moved.uncommitted = true;
      moved.durable_version = moved.window.version();
      moved.paused = owned.paused;
      owned = std::move(moved);
      list.add(topic_->wire, p, static_cast<std::int64_t>(*(*moves)[p].offset));
    }
  }
  if (list.size() == 0) return;
  const KafkaError failed(rd_kafka_seek_partitions(client_, list.get(), 5'000));
  bool all = failed == nullptr;
  for (const auto& at : list) all = all && at.err == RD_KAFKA_RESP_ERR_NO_ERROR;
  if (!all) {  // not being read yet: taken anew, it is read from there
    const KafkaError given(rd_kafka_incremental_unassign(client_, list.get()));
    const KafkaError taken(rd_kafka_incremental_assign(client_, list.get()));
    const std::lock_guard lock(mutex_);
    for (const auto& at : list) {
      if (const auto it = owned_.find(static_cast<std::uint32_t>(at.partition)); it != owned_.end())
        it->second.paused = false;
    }
  }
  const std::lock_guard lock(mutex_);
  commit_if_due(Clock::now());
}

void Consumer::finish() {
  CompletionBatch batch;
  rd_kafka_t* client = nullptr;
  {
    const std::lock_guard lock(mutex_);
    while (!owned_.empty()) drop(owned_.begin()->first, Settled::stale, batch);
    if (commit_) {
      for (auto& part : commit_->parts) answer(part.acks, Settled::unknown, batch);
      commit_.reset();
    }
    client = std::exchange(client_, nullptr);
    ended_ = true;
  }
  wake_.notify_into(batch);
  batch.flush();
  queue_.reset();
  char* const member = rd_kafka_memberid(client);
  const bool joined = member != nullptr && *member != '\0';
  rd_kafka_mem_free(client, member);
  if (joined && !ever_assigned_ && rd_kafka_version() < 0x02010100) {
    // See may_close(): rather a client that does nothing more, and what it refers to, than the end of the process.
    (void)new std::shared_ptr<Connection>(connection_);
    log::warn("a Kafka client that never got its share of a group is kept",
              {{"topic", topic_->name}, {"group", spec_.group}});
    return;
  }
  rd_kafka_destroy_flags(client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

// --- the user's side ---

void Consumer::abandon() {
  leaving_.store(true);
  wake_.notify();
  const std::lock_guard lock(mutex_);
  if (client_ != nullptr && !ended_) rd_kafka_queue_yield(queue_.get());
}

void Consumer::check_moves() {
  check_moves_.store(true);
  const std::lock_guard lock(mutex_);
  if (client_ != nullptr && !ended_) rd_kafka_queue_yield(queue_.get());
}

Task<void> Consumer::leave(std::shared_ptr<Consumer> self) {
  self->abandon();
  while (true) {
    const std::uint64_t seen = self->wake_.version();
    {
      const std::lock_guard lock(self->mutex_);
      if (self->ended_) co_return;
    }
    co_await self->wake_.wait(Context(), seen, std::chrono::seconds(1));
  }
}

Task<Result<Batch<Delivery>>> Consumer::receive(std::shared_ptr<Consumer> self, Context context, std::size_t max,
                                                std::size_t max_bytes) {
  max = std::clamp<std::size_t>(max, 1, kMaxDeliveries);
  while (true) {
    const std::uint64_t seen = self->wake_.version();
    if (self->leaving_.load()) {
      co_return fail(Code::failed_precondition, "CONSUMER_CLOSED", "this consumer has been closed",
                     "join the group again");
    }
    if (context.stop().stop_requested()) co_return fail(context.over(false));
    Batch<Delivery> out;
    std::optional<Clock::time_point> tick;
    const auto now = Clock::now();
    {
      const std::lock_guard lock(self->mutex_);
      std::size_t in_flight = 0;
      std::size_t bytes = 0;
      for (const auto& [p, owned] : self->owned_) {
        in_flight += owned.window.in_flight();
        bytes += owned.window.in_flight_bytes();
      }
      DeliveryBudget budget{.count = max,
                            .bytes = max_bytes,
                            .credit = self->spec_.max_bytes - std::min(self->spec_.max_bytes, bytes),
                            .nothing_in_flight = in_flight == 0};
      const std::uint32_t serial = ++self->serial_;
      // Another partition comes first each time.
      std::vector<std::pair<const std::uint32_t, Owned>*> parts;
      for (auto& part : self->owned_) {
        if (!part.second.drain_until) parts.push_back(&part);
      }
      if (!parts.empty()) {
        std::rotate(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(self->rotation_++ % parts.size()),
                    parts.end());
      }
      std::vector<DeliveryWindow::Handed> handed;
      const auto hand = [&](std::uint32_t p, Owned& owned) {
        if (handed.empty()) return;
        const auto [first, last] = std::minmax_element(
            handed.begin(), handed.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
        owned.window.delivered(first->offset, last->offset, now);
        for (const auto& h : handed) {
          out.push_back({self->make_token(p, h.offset, owned.window.epoch(), serial), owned.records.at(h.offset).record,
                         self->topic_->position(p, h.offset), h.attempt});
        }
        handed.clear();
      };
      // What is known comes before what is new: otherwise a large record would never find room beside small ones.
      bool suffices = true;
      for (auto* part : parts) {
        auto& [p, owned] = *part;
        owned.window.tick(now);
        owned.window.deliver_ready(
            budget, now, serial, [&o = owned](std::uint64_t offset) { return o.records.contains(offset); }, handed);
        hand(p, owned);
        std::vector<std::uint64_t> left;
        DeliveryBudget rest = budget;
        suffices = owned.window.wanted(rest, now, left) && left.empty() && suffices;
      }
      for (auto* part : parts) {
        auto& [p, owned] = *part;
        while (suffices && !owned.waiting.empty() && owned.window.may_fetch() && budget.allows(1))
          self->feed(owned, budget, now, handed);
        hand(p, owned);
        const auto at = owned.window.next_tick();
        if (at && (!tick || *at < *tick)) tick = at;
      }
      if (!out.empty() && !self->write_due_) self->write_due_ = now + kNoteDeliveriesAfter;
      if (out.empty() && self->error_) co_return fail(*std::exchange(self->error_, std::nullopt));
    }
    if (!out.empty()) co_return out;
    if (const auto trouble = self->connection_->trouble(); trouble && client::needs_operator(*trouble))
      co_return fail(*trouble);
    if (now >= context.deadline()) co_return Batch<Delivery>();
    auto next = std::min(context.deadline(), now + std::chrono::seconds(1));
    if (tick) next = std::min(next, *tick);
    co_await self->wake_.wait(context, seen, std::max(next - now, Clock::duration::zero()));
  }
}

Task<Batch<Settled>> Consumer::settle(std::shared_ptr<Consumer> self, Context context, Batch<Settle> settles) {
  auto waiter = std::make_shared<Waiter>(self->loop_, settles.size());
  (void)waiter->shot->begin();
  bool wake = false;
  {
    const std::lock_guard lock(self->mutex_);
    const auto now = Clock::now();
    for (std::size_t i = 0; i < settles.size(); ++i) {
      Settled& result = waiter->results[i];
      const auto token = parse_token(settles[i].token);
      if (!token || token->nonce != self->nonce_) {
        result = Settled::invalid;
        continue;
      }
      const auto serial = static_cast<std::uint32_t>(token->serial);
      Owned* const owned = self->find(static_cast<std::uint32_t>(token->partition), token->epoch);
      if (owned == nullptr) continue;
      const auto delay = std::max(settles[i].delay, Clock::duration::zero());
      switch (settles[i].what) {
        case Settle::Do::ack:
          if (!owned->window.begin_ack(token->offset, serial)) break;
          result = Settled::unknown;  // until it is committed
          ++waiter->open;
          owned->acks.push_back({token->offset, waiter, i});
          break;
        case Settle::Do::nack:
          if (!owned->window.nack(token->offset, serial, now + delay)) break;
          result = Settled::ok;
          wake = true;
          break;
        case Settle::Do::extend:
          if (owned->window.extend(token->offset, serial, now + delay)) result = Settled::ok;
          break;
      }
    }
    if (waiter->open == 0) {
      if (wake) self->wake_.notify();
      co_return waiter->results;
    }
    self->commit_if_due(now);
  }
  if (wake) self->wake_.notify();
  self->deadlines_.add(context.deadline(), waiter->shot);
  co_await waiter->shot->wait(context.stop());
  const std::lock_guard lock(self->mutex_);
  co_return waiter->results;
}

}  // namespace prism::kafka
