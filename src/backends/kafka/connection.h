// What the clients of one backend share: options, what is known of the brokers' health, and requests that are not
// about records (metadata, topics, offsets of groups).
#pragma once

#include <librdkafka/rdkafka.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/client/errors.h"
#include "backends/kafka/codec.h"
#include "backends/kafka/options.h"
#include "backends/kafka/threads.h"
#include "base/types.h"

namespace prism::kafka {

template <auto F>
struct Deleter {
  template <class T>
  void operator()(T* p) const noexcept {
    F(p);
  }
};
using Conf = std::unique_ptr<rd_kafka_conf_t, Deleter<rd_kafka_conf_destroy>>;
using Queue = std::unique_ptr<rd_kafka_queue_t, Deleter<rd_kafka_queue_destroy>>;
using Event = std::unique_ptr<rd_kafka_event_t, Deleter<rd_kafka_event_destroy>>;
using TopicHandle = std::unique_ptr<rd_kafka_topic_t, Deleter<rd_kafka_topic_destroy>>;
using KafkaError = std::unique_ptr<rd_kafka_error_t, Deleter<rd_kafka_error_destroy>>;

// Partitions of one or several topics, as librdkafka takes them.
class PartitionList {
 public:
  PartitionList() : list_(rd_kafka_topic_partition_list_new(8)) {}
  explicit PartitionList(const rd_kafka_topic_partition_list_t* other)
      : list_(rd_kafka_topic_partition_list_copy(other)) {}
  rd_kafka_topic_partition_t& add(const std::string& topic, std::uint32_t partition,
                                  std::int64_t offset = RD_KAFKA_OFFSET_INVALID, std::string_view metadata = {});
  rd_kafka_topic_partition_list_t* get() const noexcept { return list_.get(); }
  std::size_t size() const noexcept { return static_cast<std::size_t>(list_->cnt); }
  rd_kafka_topic_partition_t* begin() const noexcept { return list_->elems; }
  rd_kafka_topic_partition_t* end() const noexcept { return list_->elems + list_->cnt; }

 private:
  std::unique_ptr<rd_kafka_topic_partition_list_t, Deleter<rd_kafka_topic_partition_list_destroy>> list_;
};

class Connection;

// A client of librdkafka for requests; destroying it blocks.
struct RequestClient {
  explicit RequestClient(rd_kafka_t* c) noexcept : raw(c) {}
  ~RequestClient() { rd_kafka_destroy(raw); }
  RequestClient(const RequestClient&) = delete;
  RequestClient& operator=(const RequestClient&) = delete;
  rd_kafka_t* const raw;
};

// Thread-safe. librdkafka's clients refer to it: it outlives them.
class Connection {
 public:
  Connection(std::string backend, Options options);
  ~Connection();  // when all threads have ended
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const Options& options() const noexcept { return options_; }
  const client::Peer& peer() const noexcept { return peer_; }

  // What all clients have in common. Errors: files of certificates that cannot be used.
  Result<Conf> conf(std::string_view client_id = "prism") const;
  Result<rd_kafka_t*> make(rd_kafka_type_t type, Conf conf);

  // Those that serve clients, or destroy them.
  Threads& threads() noexcept { return *threads_; }

  // The client for requests; made when it is first asked for.
  Result<std::shared_ptr<RequestClient>> requests();
  // It is not used any more, and destroyed when nobody uses it.
  void discard(std::shared_ptr<RequestClient> client);

  // --- health ---
  void answered() noexcept;  // some broker did
  // An event of librdkafka's about its connections.
  void note(rd_kafka_resp_err_t code, std::string_view detail);
  // For operations that begin: what is wrong, once it has been so for a while or for good until somebody mends it.
  Result<void> admit() const;
  std::optional<Error> trouble() const;  // at once
  Error error(rd_kafka_resp_err_t code, std::string_view detail = {}, Retry retry = Retry::safe) const;

 private:
  static void log(const rd_kafka_t* rk, int level, const char* facility, const char* text);

  const Options options_;
  const client::Peer peer_;
  const std::shared_ptr<Threads> threads_ = std::make_shared<Threads>();
  std::atomic<bool> healthy_{true};
  mutable std::mutex mutex_;
  std::shared_ptr<RequestClient> requests_;  // guarded by mutex_
  std::string last_break_;                   // why the last connection broke, or was not made; guarded by mutex_
  std::optional<Error> trouble_;             // guarded by mutex_
  Clock::time_point since_{};                // guarded by mutex_
  Clock::time_point since_sure_{};           // when trouble that needs an operator was last seen; guarded by mutex_
};

// Requests that block: for threads that may wait. Thread-safe.
class Admin {
 public:
  struct TopicMeta {
    std::uint32_t partitions = 0;
    std::uint32_t replication = 0;
  };
  struct GroupOffset {
    std::optional<std::uint64_t> offset;  // none: never committed
    std::string metadata;
  };

  explicit Admin(Connection& connection) : connection_(connection) {}

  // `topic` and `group` are Kafka's names of them.
  Result<TopicMeta> metadata(const std::string& topic, Clock::time_point deadline);
  Result<std::map<std::string, TopicMeta>> all_topics(Clock::time_point deadline);
  // False: it is there already.
  Result<bool> create(const std::string& topic, std::uint32_t partitions, std::uint32_t replication,
                      Clock::time_point deadline);
  Result<std::uint64_t> max_message_bytes(const std::string& topic, Clock::time_point deadline);
  // Of partitions 0 to n-1. `when`: RD_KAFKA_OFFSET_BEGINNING, RD_KAFKA_OFFSET_END, or milliseconds since 1970, which
  // gives the first record at or after it, or the end.
  Result<std::vector<std::uint64_t>> offsets(const std::string& topic, std::uint32_t partitions, std::int64_t when,
                                             Clock::time_point deadline);
  Result<std::vector<GroupOffset>> committed(const std::string& group, const std::string& topic,
                                             std::uint32_t partitions, Clock::time_point deadline);
  // False: the group has members, and only they may.
  Result<bool> commit(const std::string& group, const PartitionList& offsets, Clock::time_point deadline);
  Result<std::vector<std::string>> groups(Clock::time_point deadline);

 private:
  Result<Event> wait(rd_kafka_queue_t* queue, Clock::time_point deadline);
  Error error(rd_kafka_resp_err_t code, std::string_view detail = {}, Retry retry = Retry::safe) const {
    return connection_.error(code, detail, retry);
  }

  Connection& connection_;
};

// Milliseconds until then, as librdkafka takes them; never less than 1.
int until(Clock::time_point deadline);

}  // namespace prism::kafka
