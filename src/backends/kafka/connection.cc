#include "backends/kafka/connection.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <thread>

#include "backends/kafka/errors.h"
#include "base/text.h"
#include "telemetry/log.h"

namespace prism::kafka {
namespace {

// How long brokers may be away before operations are refused at once. A restart of the only one takes seconds, and what
// is asked for meanwhile can wait.
constexpr auto kPatience = std::chrono::seconds(5);
constexpr auto kRefusalCounts = std::chrono::seconds(30);  // after a refused log-in

std::string joined(const std::vector<std::string>& parts, std::string_view with) {
  std::string out;
  for (const auto& part : parts) {
    if (!out.empty()) out += with;
    out += part;
  }
  return out;
}

std::string_view name_of(Mechanism mechanism) {
  switch (mechanism) {
    case Mechanism::scram_sha_256:
      return "SCRAM-SHA-256";
    case Mechanism::scram_sha_512:
      return "SCRAM-SHA-512";
    case Mechanism::plain:
      break;
  }
  return "PLAIN";
}

}  // namespace

int until(Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 1, 600'000));
}

rd_kafka_topic_partition_t& PartitionList::add(const std::string& topic, std::uint32_t partition, std::int64_t offset,
                                               std::string_view metadata) {
  auto* const added =
      rd_kafka_topic_partition_list_add(list_.get(), topic.c_str(), static_cast<std::int32_t>(partition));
  added->offset = offset;
  if (!metadata.empty()) {                           // librdkafka frees it with the list
    added->metadata = std::malloc(metadata.size());  // NOLINT(cppcoreguidelines-no-malloc)
    std::copy(metadata.begin(), metadata.end(), static_cast<char*>(added->metadata));
    added->metadata_size = metadata.size();
  }
  return *added;
}

Connection::Connection(std::string backend, Options options)
    : options_(std::move(options)),
      peer_{.backend = std::move(backend), .system = "Kafka", .address = joined(options_.brokers, ", ")} {}

Connection::~Connection() {
  threads_->join();
  requests_.reset();
}

Result<std::shared_ptr<RequestClient>> Connection::requests() {
  {
    const std::lock_guard lock(mutex_);
    if (requests_ != nullptr) return requests_;
  }
  PRISM_TRY(Conf conf, this->conf());
  PRISM_TRY(rd_kafka_t* const raw, make(RD_KAFKA_PRODUCER, std::move(conf)));
  auto made = std::make_shared<RequestClient>(raw);
  {
    const std::lock_guard lock(mutex_);
    if (requests_ == nullptr) requests_ = made;
    if (requests_ == made) return made;
  }
  discard(std::move(made));  // another one was faster
  return requests();
}

void Connection::discard(std::shared_ptr<RequestClient> client) {
  {
    const std::lock_guard lock(mutex_);
    if (requests_ == client) requests_.reset();
  }
  threads_->start([client = std::move(client)]() mutable { client.reset(); });
}

Result<Conf> Connection::conf(std::string_view client_id) const {
  Conf conf(rd_kafka_conf_new());
  std::optional<Error> failed;
  const auto set = [&](const char* name, const std::string& value) {
    if (failed) return;
    std::array<char, 512> why{};
    if (rd_kafka_conf_set(conf.get(), name, value.c_str(), why.data(), why.size()) == RD_KAFKA_CONF_OK) return;
    failed = Error{Code::failed_precondition,
                   "BACKEND_REFUSED",
                   peer_.text() + ": librdkafka does not take the option " + name,
                   "use a librdkafka that is built with it",
                   Retry::never,
                   {},
                   {{"backend", peer_.backend}}};
  };
  set("bootstrap.servers", joined(options_.brokers, ","));
  set("client.id", std::string(client_id));
  set("allow.auto.create.topics", "false");
  set("reconnect.backoff.ms", "50");
  set("reconnect.backoff.max.ms", "1000");
  set("socket.connection.setup.timeout.ms",
      std::to_string(std::max<std::int64_t>(options_.timeouts.connect.count(), 1'000)));
  set("socket.timeout.ms",
      std::to_string(std::clamp<std::int64_t>(options_.timeouts.operation.count(), 1'000, 300'000)));
  set("socket.nagle.disable", "true");
  set("socket.keepalive.enable", "true");
  set("log.connection.close", "false");
  set("broker.address.ttl", "5000");
  const bool tls = client::uses_tls(options_.tls);
  const bool login = options_.login_user.has_value();
  set("security.protocol", login ? (tls ? "SASL_SSL" : "SASL_PLAINTEXT") : (tls ? "SSL" : "PLAINTEXT"));
  if (login) {
    set("sasl.mechanism", std::string(name_of(options_.mechanism)));
    set("sasl.username", *options_.login_user);
    set("sasl.password", options_.login_password ? options_.login_password->reveal() : std::string());
  }
  if (tls) {
    const auto& t = *options_.tls;
    if (t.ca_file) set("ssl.ca.location", *t.ca_file);
    if (t.cert_file) set("ssl.certificate.location", *t.cert_file);
    if (t.key_file) set("ssl.key.location", *t.key_file);
    set("enable.ssl.certificate.verification", t.verify ? "true" : "false");
    set("ssl.endpoint.identification.algorithm", t.verify ? "https" : "none");
  }
  if (failed) return fail(std::move(*failed));
  rd_kafka_conf_set_opaque(conf.get(), const_cast<Connection*>(this));  // NOLINT: the callback takes it as const again
  rd_kafka_conf_set_log_cb(conf.get(), log);
  return conf;
}

Result<rd_kafka_t*> Connection::make(rd_kafka_type_t type, Conf conf) {
  std::array<char, 512> why{};
  rd_kafka_t* const client = rd_kafka_new(type, conf.get(), why.data(), why.size());
  if (client == nullptr) {
    const std::string_view text(why.data());
    if (client::uses_tls(options_.tls) && text.find("ssl") != std::string_view::npos)
      return fail(client::tls_failed(peer_, made_visible(text)));
    return fail(error(RD_KAFKA_RESP_ERR__INVALID_ARG, text));
  }
  (void)conf.release();  // NOLINT(bugprone-unused-return-value): it is the client's now
  return client;
}

void Connection::log(const rd_kafka_t* rk, int level, const char* facility, const char* text) {
  const auto* self = static_cast<const Connection*>(rd_kafka_opaque(rk));
  // What is said of connections comes as events too, and is told by those who use them.
  const std::string words = made_visible(text);
  const std::string_view backend = self != nullptr ? std::string_view(self->peer_.backend) : std::string_view();
  const auto as = level <= 3 ? log::Level::warn : level <= 5 ? log::Level::info : log::Level::debug;
  log::write(as, "Kafka client", {{"backend", backend}, {"reason", std::string_view(facility)}, {"error", words}});
}

void Connection::answered() noexcept {
  if (healthy_.load(std::memory_order_relaxed)) return;
  bool back = false;
  {
    const std::lock_guard lock(mutex_);
    back = trouble_.has_value();
    trouble_.reset();
    healthy_.store(true, std::memory_order_relaxed);
  }
  if (back) log::info("backend answers again", {{"backend", peer_.backend}});
}

void Connection::note(rd_kafka_resp_err_t code, std::string_view detail) {
  if (code == RD_KAFKA_RESP_ERR__TRANSPORT || code == RD_KAFKA_RESP_ERR__RESOLVE) {  // one of them; why, if it is all
    const std::lock_guard lock(mutex_);
    last_break_ = made_visible(detail);
    return;
  }
  const bool down = code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN;
  std::string why(detail);
  if (down) {
    const std::lock_guard lock(mutex_);
    if (!last_break_.empty()) why = last_break_;
  }
  Error now = error_of(peer_, code, why);
  if (options_.mechanism != Mechanism::plain && now.reason == "BACKEND_AUTHENTICATION_FAILED" &&
      rd_kafka_version() < 0x02060100) {
    now.hint += "; SCRAM against Kafka 4 needs librdkafka 2.6.1 or later";
  }
  const bool sure = client::needs_operator(now);
  if (!down && !sure) return;
  const auto time = Clock::now();
  bool fresh = false;
  {
    const std::lock_guard lock(mutex_);
    if (sure) since_sure_ = time;
    // librdkafka says "all brokers down" after each refusal: the refusal is what matters.
    const bool keeps = trouble_ && client::needs_operator(*trouble_) && !sure && time - since_sure_ < kRefusalCounts;
    if (!trouble_) since_ = time;
    if (!keeps) {
      fresh = !trouble_ || trouble_->reason != now.reason;
      trouble_ = now;
    }
    healthy_.store(false, std::memory_order_relaxed);
  }
  if (fresh) {
    log::warn("backend does not answer", {{"backend", peer_.backend}, {"reason", now.reason}, {"error", now.message}});
  }
}

Result<void> Connection::admit() const {
  if (healthy_.load(std::memory_order_relaxed)) return {};
  const std::lock_guard lock(mutex_);
  if (!trouble_) return {};
  if (!client::needs_operator(*trouble_) && Clock::now() - since_ < kPatience) return {};
  return fail(*trouble_);
}

std::optional<Error> Connection::trouble() const {
  const std::lock_guard lock(mutex_);
  return trouble_;
}

Error Connection::error(rd_kafka_resp_err_t code, std::string_view detail, Retry retry) const {
  Error out = error_of(peer_, code, detail, retry);
  if (out.reason != "BACKEND_TIMEOUT" && out.reason != "BACKEND_UNAVAILABLE") return out;
  // What waited in vain, waited for brokers of which more is known.
  auto known = trouble();
  if (!known) return out;
  known->retry = retry;
  return *std::move(known);
}

// --- Admin ---

namespace {

// Of requests to a group's coordinator. librdkafka 2.0 uses freed memory when one that has timed out finds its
// coordinator after all. So theirs is the longest that it takes, and a client with one that was given up is not used
// any more.
constexpr int kLongest = 3'600'000;

struct Wait {
  Queue queue;
  std::unique_ptr<rd_kafka_AdminOptions_t, Deleter<rd_kafka_AdminOptions_destroy>> options;

  Wait(rd_kafka_t* client, rd_kafka_admin_op_t op, int timeout)
      : queue(rd_kafka_queue_new(client)), options(rd_kafka_AdminOptions_new(client, op)) {
    std::array<char, 64> why{};
    rd_kafka_AdminOptions_set_request_timeout(options.get(), timeout, why.data(), why.size());
  }
};

std::vector<std::string> names_of(const rd_kafka_ListConsumerGroups_result_t* result) {
  std::vector<std::string> out;
  std::size_t n = 0;
  const auto* const* const valid = rd_kafka_ListConsumerGroups_result_valid(result, &n);
  for (std::size_t i = 0; i < n; ++i) out.emplace_back(rd_kafka_ConsumerGroupListing_group_id(valid[i]));
  return out;
}

}  // namespace

Result<Event> Admin::wait(rd_kafka_queue_t* queue, Clock::time_point deadline) {
  // The request has its own time-out and always answers; this is what is left for the answer.
  Event event(rd_kafka_queue_poll(queue, until(deadline) + 1'000));
  if (event == nullptr) return fail(error(RD_KAFKA_RESP_ERR__TIMED_OUT));
  if (const auto code = rd_kafka_event_error(event.get()); code != RD_KAFKA_RESP_ERR_NO_ERROR) {
    const char* const text = rd_kafka_event_error_string(event.get());
    return fail(error(code, text != nullptr ? text : ""));
  }
  connection_.answered();
  return event;
}

Result<Admin::TopicMeta> Admin::metadata(const std::string& topic, Clock::time_point deadline) {
  PRISM_TRY(const auto client, connection_.requests());
  const TopicHandle handle(rd_kafka_topic_new(client->raw, topic.c_str(), nullptr));
  if (handle == nullptr) return fail(error(rd_kafka_last_error()));
  while (true) {
    const rd_kafka_metadata_t* found = nullptr;
    // In slices: where the brokers refuse us, it is of no use to wait.
    const auto slice = std::min(deadline, Clock::now() + std::chrono::seconds(1));
    auto code = rd_kafka_metadata(client->raw, 0, handle.get(), &found, until(slice));
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
      const auto known = connection_.trouble();
      if ((known && client::needs_operator(*known)) || Clock::now() >= deadline || !is_transient(code))
        return fail(error(code));
      continue;
    }
    const std::unique_ptr<const rd_kafka_metadata_t, Deleter<rd_kafka_metadata_destroy>> owner(found);
    connection_.answered();
    if (found->topic_cnt != 1) return fail(topic_not_found(topic));
    const auto& t = found->topics[0];
    code = t.err;
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR && t.partition_cnt > 0) {
      const bool led =
          std::all_of(t.partitions, t.partitions + t.partition_cnt, [](const auto& p) { return p.leader >= 0; });
      // A topic that has just been made: its partitions get their leaders in a moment.
      if (led || Clock::now() + std::chrono::milliseconds(50) >= deadline) {
        return TopicMeta{static_cast<std::uint32_t>(t.partition_cnt),
                         static_cast<std::uint32_t>(t.partitions[0].replica_cnt)};
      }
    } else if (code != RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) {
      return fail(error(code == RD_KAFKA_RESP_ERR_NO_ERROR ? RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART : code));
    }
    if (Clock::now() + std::chrono::milliseconds(50) >= deadline) return fail(error(code));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

Result<std::map<std::string, Admin::TopicMeta>> Admin::all_topics(Clock::time_point deadline) {
  PRISM_TRY(const auto client, connection_.requests());
  const rd_kafka_metadata_t* found = nullptr;
  const auto code = rd_kafka_metadata(client->raw, 1, nullptr, &found, until(deadline));
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return fail(error(code));
  const std::unique_ptr<const rd_kafka_metadata_t, Deleter<rd_kafka_metadata_destroy>> owner(found);
  connection_.answered();
  std::map<std::string, TopicMeta> out;
  for (int i = 0; i < found->topic_cnt; ++i) {
    const auto& t = found->topics[i];
    if (t.err != RD_KAFKA_RESP_ERR_NO_ERROR || t.partition_cnt == 0) continue;
    out.emplace(t.topic, TopicMeta{static_cast<std::uint32_t>(t.partition_cnt),
                                   static_cast<std::uint32_t>(t.partitions[0].replica_cnt)});
  }
  return out;
}

Result<bool> Admin::create(const std::string& topic, std::uint32_t partitions, std::uint32_t replication,
                           Clock::time_point deadline) {
  PRISM_TRY(const auto client, connection_.requests());
  std::array<char, 256> why{};
  const std::unique_ptr<rd_kafka_NewTopic_t, Deleter<rd_kafka_NewTopic_destroy>> wanted(
      rd_kafka_NewTopic_new(topic.c_str(), partitions == 0 ? -1 : static_cast<int>(partitions),
                            replication == 0 ? -1 : static_cast<int>(replication), why.data(), why.size()));
  if (wanted == nullptr) return fail(error(RD_KAFKA_RESP_ERR_INVALID_PARTITIONS, why.data()));
  // A record's time is that of its append.
  rd_kafka_NewTopic_set_config(wanted.get(), "message.timestamp.type", "LogAppendTime");
  Wait wait_for(client->raw, RD_KAFKA_ADMIN_OP_CREATETOPICS, until(deadline));
  rd_kafka_AdminOptions_set_operation_timeout(wait_for.options.get(), until(deadline), why.data(), why.size());
  rd_kafka_NewTopic_t* list = wanted.get();
  rd_kafka_CreateTopics(client->raw, &list, 1, wait_for.options.get(), wait_for.queue.get());
  PRISM_TRY(const Event event, wait(wait_for.queue.get(), deadline));
  std::size_t n = 0;
  const auto* const* const results =
      rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event.get()), &n);
  if (n != 1) return fail(error(RD_KAFKA_RESP_ERR__BAD_MSG));
  const auto code = rd_kafka_topic_result_error(results[0]);
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) return true;
  if (code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) return false;
  const char* const text = rd_kafka_topic_result_error_string(results[0]);
  return fail(error(code, text != nullptr ? text : ""));
}

Result<std::uint64_t> Admin::max_message_bytes(const std::string& topic, Clock::time_point deadline) {
  PRISM_TRY(const auto client, connection_.requests());
  const std::unique_ptr<rd_kafka_ConfigResource_t, Deleter<rd_kafka_ConfigResource_destroy>> wanted(
      rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic.c_str()));
  Wait wait_for(client->raw, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, until(deadline));
  rd_kafka_ConfigResource_t* list = wanted.get();
  rd_kafka_DescribeConfigs(client->raw, &list, 1, wait_for.options.get(), wait_for.queue.get());
  PRISM_TRY(const Event event, wait(wait_for.queue.get(), deadline));
  std::size_t n = 0;
  const auto* const* const resources =
      rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(event.get()), &n);
  constexpr std::uint64_t kAsInstalled = 1'048'588;
  if (n != 1) return kAsInstalled;
  if (const auto code = rd_kafka_ConfigResource_error(resources[0]); code != RD_KAFKA_RESP_ERR_NO_ERROR) {
    // Not everybody may ask; the broker refuses what is too large.
    if (code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED || code == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED)
      return kAsInstalled;
    return fail(error(code));
  }
  const auto* const* const entries = rd_kafka_ConfigResource_configs(resources[0], &n);
  for (std::size_t i = 0; i < n; ++i) {
    const char* const value = rd_kafka_ConfigEntry_value(entries[i]);
    if (std::string_view(rd_kafka_ConfigEntry_name(entries[i])) == "max.message.bytes" && value != nullptr)
      return std::strtoull(value, nullptr, 10);
  }
  return kAsInstalled;
}

Result<std::vector<std::uint64_t>> Admin::offsets(const std::string& topic, std::uint32_t partitions, std::int64_t when,
                                                  Clock::time_point deadline) {
  PRISM_TRY(const auto client, connection_.requests());
  while (true) {
    PartitionList list;
    for (std::uint32_t p = 0; p < partitions; ++p) list.add(topic, p, when);
    auto code = rd_kafka_offsets_for_times(client->raw, list.get(), until(deadline));
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) connection_.answered();
    std::vector<std::uint64_t> out(partitions);
    std::vector<std::size_t> beyond;
    for (const auto& at : list) {
      if (at.err != RD_KAFKA_RESP_ERR_NO_ERROR) code = at.err;
      const auto p = static_cast<std::size_t>(at.partition);
      if (at.offset >= 0) {
        out[p] = static_cast<std::uint64_t>(at.offset);
      } else {
        beyond.push_back(p);
      }
    }
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR && beyond.empty()) return out;
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR && when >= 0) {
      PRISM_TRY(const auto ends, offsets(topic, partitions, RD_KAFKA_OFFSET_END, deadline));
      for (const std::size_t p : beyond) out[p] = ends[p];
      return out;
    }
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) code = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
    // Leaders of a topic that has just been made, or of a broker that went, come in a moment.
    if (!is_transient(code) || code == RD_KAFKA_RESP_ERR__TIMED_OUT ||
        Clock::now() + std::chrono::milliseconds(100) >= deadline) {
      return fail(error(code));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  }
}

Result<std::vector<Admin::GroupOffset>> Admin::committed(const std::string& group, const std::string& topic,
                                                         std::uint32_t partitions, Clock::time_point deadline) {
  PRISM_TRY(const auto client, connection_.requests());
  while (true) {
    PartitionList list;
    for (std::uint32_t p = 0; p < partitions; ++p) list.add(topic, p);
    const std::unique_ptr<rd_kafka_ListConsumerGroupOffsets_t, Deleter<rd_kafka_ListConsumerGroupOffsets_destroy>>
        wanted(rd_kafka_ListConsumerGroupOffsets_new(group.c_str(), list.get()));
    Wait wait_for(client->raw, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS, kLongest);
    rd_kafka_ListConsumerGroupOffsets_t* ask = wanted.get();
    rd_kafka_ListConsumerGroupOffsets(client->raw, &ask, 1, wait_for.options.get(), wait_for.queue.get());
    const Event event(rd_kafka_queue_poll(wait_for.queue.get(), until(deadline)));
    if (event == nullptr) {
      connection_.discard(client);
      return fail(error(RD_KAFKA_RESP_ERR__TIMED_OUT));
    }
    if (const auto failed = rd_kafka_event_error(event.get()); failed != RD_KAFKA_RESP_ERR_NO_ERROR) {
      const char* const text = rd_kafka_event_error_string(event.get());
      return fail(error(failed, text != nullptr ? text : ""));
    }
    connection_.answered();
    std::size_t n = 0;
    const auto* const* const results = rd_kafka_ListConsumerGroupOffsets_result_groups(
        rd_kafka_event_ListConsumerGroupOffsets_result(event.get()), &n);
    if (n != 1) return fail(error(RD_KAFKA_RESP_ERR__BAD_MSG));
    auto code = RD_KAFKA_RESP_ERR_NO_ERROR;
    if (const auto* failed = rd_kafka_group_result_error(results[0])) code = rd_kafka_error_code(failed);
    std::vector<GroupOffset> out(partitions);
    if (const auto* found = rd_kafka_group_result_partitions(results[0]); code == RD_KAFKA_RESP_ERR_NO_ERROR && found) {
      for (int i = 0; i < found->cnt; ++i) {
        const auto& at = found->elems[i];
        if (at.err != RD_KAFKA_RESP_ERR_NO_ERROR) code = at.err;
        if (at.offset < 0 || static_cast<std::uint32_t>(at.partition) >= partitions) continue;
        out[static_cast<std::size_t>(at.partition)] = {
            static_cast<std::uint64_t>(at.offset),
            at.metadata == nullptr ? std::string()
                                   : std::string(static_cast<const char*>(at.metadata), at.metadata_size)};
      }
    }
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) return out;
    if (!is_transient(code) || Clock::now() + std::chrono::milliseconds(100) >= deadline) return fail(error(code));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

Result<bool> Admin::commit(const std::string& group, const PartitionList& offsets, Clock::time_point deadline) {
  PRISM_TRY(const auto client, connection_.requests());
  while (true) {
    const std::unique_ptr<rd_kafka_AlterConsumerGroupOffsets_t, Deleter<rd_kafka_AlterConsumerGroupOffsets_destroy>>
        wanted(rd_kafka_AlterConsumerGroupOffsets_new(group.c_str(), offsets.get()));
    Wait wait_for(client->raw, RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS, kLongest);
    rd_kafka_AlterConsumerGroupOffsets_t* ask = wanted.get();
    rd_kafka_AlterConsumerGroupOffsets(client->raw, &ask, 1, wait_for.options.get(), wait_for.queue.get());
    const Event event(rd_kafka_queue_poll(wait_for.queue.get(), until(deadline)));
    if (event == nullptr) {
      connection_.discard(client);
      return fail(error(RD_KAFKA_RESP_ERR__TIMED_OUT, {}, Retry::unknown_outcome));
    }
    auto code = rd_kafka_event_error(event.get());
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
      connection_.answered();
      std::size_t n = 0;
      const auto* const* const results = rd_kafka_AlterConsumerGroupOffsets_result_groups(
          rd_kafka_event_AlterConsumerGroupOffsets_result(event.get()), &n);
      if (n != 1) return fail(error(RD_KAFKA_RESP_ERR__BAD_MSG));
      if (const auto* failed = rd_kafka_group_result_error(results[0])) code = rd_kafka_error_code(failed);
      const auto* const found = rd_kafka_group_result_partitions(results[0]);
      for (int i = 0; found != nullptr && i < found->cnt; ++i) {
        if (found->elems[i].err != RD_KAFKA_RESP_ERR_NO_ERROR) code = found->elems[i].err;
      }
    }
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) return true;
    if (code == RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID || code == RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS) return false;
    if (!is_transient(code) || Clock::now() + std::chrono::milliseconds(100) >= deadline) return fail(error(code));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

Result<std::vector<std::string>> Admin::groups(Clock::time_point deadline) {
  PRISM_TRY(const auto client, connection_.requests());
  Wait wait_for(client->raw, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS, until(deadline));
  rd_kafka_ListConsumerGroups(client->raw, wait_for.options.get(), wait_for.queue.get());
  PRISM_TRY(const Event event, wait(wait_for.queue.get(), deadline));
  return names_of(rd_kafka_event_ListConsumerGroups_result(event.get()));
}

}  // namespace prism::kafka
