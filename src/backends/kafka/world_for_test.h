// Topics and groups of one test on the test's broker, and clients of it.
#pragma once

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>

#include "backends/kafka/connection.h"
#include "backends/kafka/event_log.h"
#include "base/ids.h"
#include "runtime/scope.h"

namespace prism::kafka {

template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().describe());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

inline std::string variable(const char* name) {
  const char* const text = std::getenv(name);
  if (text == nullptr) throw std::runtime_error(std::string(name) + " is not set: scripts/servers env");
  return text;
}

// A log that is closed when it goes.
struct TestLog {
  TestLog(Runtime& runtime, Options options) : log(must(open_event_log(runtime, "test-kafka", std::move(options)))) {}
  ~TestLog() { run_blocking(log->close(Context())); }
  EventLog* operator->() const { return log.get(); }
  std::shared_ptr<KafkaEventLog> log;
};

// All that the test makes has a name that begins with its prefix, and is deleted at its end.
class World {
 public:
  explicit World(const char* broker = "PRISM_TEST_KAFKA") {
    options.brokers = {variable(broker)};
    options.prefix = "t" + to_hex(random_id()).substr(0, 12) + ".";
    options.partitions = 8;
    options.session_timeout = std::chrono::seconds(6);
    options.heartbeat = std::chrono::seconds(1);
    connection_ = std::make_shared<Connection>("test-admin", options);
    client_ = must(connection_->make(RD_KAFKA_PRODUCER, must(connection_->conf())));
  }
  ~World() {
    wipe();
    rd_kafka_destroy(client_);
  }
  // Deletes all topics and groups.
  void wipe() {
    Admin admin(*connection_);
    const auto deadline = Clock::now() + std::chrono::seconds(20);
    const Queue queue(rd_kafka_queue_new(client_));
    const auto gone = [&] {
      const auto all = admin.all_topics(deadline);
      if (!all) return true;
      std::vector<rd_kafka_DeleteTopic_t*> topics;
      for (const auto& [name, meta] : *all) {
        if (name.starts_with(options.prefix)) topics.push_back(rd_kafka_DeleteTopic_new(name.c_str()));
      }
      if (topics.empty()) return true;
      rd_kafka_DeleteTopics(client_, topics.data(), topics.size(), nullptr, queue.get());
      const Event event(rd_kafka_queue_poll(queue.get(), 10'000));
      rd_kafka_DeleteTopic_destroy_array(topics.data(), topics.size());
      return false;
    };
    while (!gone() && Clock::now() < deadline) std::this_thread::yield();
    const auto names = admin.groups(deadline);
    if (!names) return;
    std::vector<rd_kafka_DeleteGroup_t*> groups;
    for (const auto& name : *names) {
      if (name.find(options.prefix) != std::string::npos) groups.push_back(rd_kafka_DeleteGroup_new(name.c_str()));
    }
    if (groups.empty()) return;
    rd_kafka_DeleteGroups(client_, groups.data(), groups.size(), nullptr, queue.get());
    const Event event(rd_kafka_queue_poll(queue.get(), 10'000));
    rd_kafka_DeleteGroup_destroy_array(groups.data(), groups.size());
  }

  // A topic as somebody else has made it.
  void make_topic(const std::string& name, const char* option, const char* value) {
    char why[256];
    rd_kafka_NewTopic_t* topic = rd_kafka_NewTopic_new((options.prefix + name).c_str(), 1, 1, why, sizeof why);
    rd_kafka_NewTopic_set_config(topic, option, value);
    const Queue queue(rd_kafka_queue_new(client_));
    rd_kafka_CreateTopics(client_, &topic, 1, nullptr, queue.get());
    const Event event(rd_kafka_queue_poll(queue.get(), 20'000));
    rd_kafka_NewTopic_destroy(topic);
    if (event == nullptr || rd_kafka_event_error(event.get()) != RD_KAFKA_RESP_ERR_NO_ERROR)
      throw std::runtime_error("the topic cannot be made");
  }

  Options options;
  Runtime runtime;

 private:
  std::shared_ptr<Connection> connection_;
  rd_kafka_t* client_ = nullptr;
};

}  // namespace prism::kafka
