// Producer: an idempotent producer of librdkafka and the thread that takes its reports.
#pragma once

#include <librdkafka/rdkafka.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "backends/kafka/connection.h"
#include "backends/kafka/deadlines.h"
#include "backends/kafka/topic.h"
#include "runtime/context.h"
#include "runtime/loop.h"
#include "runtime/task.h"

namespace prism::kafka {

class Producer {
 public:
  // `batch_bytes`: what is sent together; no topic that it is used for takes less.
  static Result<std::shared_ptr<Producer>> open(std::shared_ptr<Connection> connection, EventLoop& loop,
                                                std::uint64_t batch_bytes);
  ~Producer();  // after close()
  Producer(const Producer&) = delete;
  Producer& operator=(const Producer&) = delete;

  rd_kafka_t* client() const noexcept { return client_; }
  // As EventLog::append, of a topic that is there.
  static Task<Batch<Result<Appended>>> append(std::shared_ptr<Producer> self, Context context, TopicPtr topic,
                                              Batch<Record> records);
  // It cannot go on (its order may have been lost at the broker): another one must.
  bool broken() const noexcept { return broken_.load(); }
  // Blocks: sends what waits until the deadline, gives up the rest, ends the thread. Later appends fail.
  void close(Clock::time_point deadline);

 private:
  class Op;
  struct Entry;

  Producer(std::shared_ptr<Connection> connection, EventLoop& loop) : connection_(std::move(connection)), loop_(loop) {}
  rd_kafka_resp_err_t produce(rd_kafka_topic_t* handle, Entry& entry, const Record& record, std::uint32_t partition);
  rd_kafka_topic_t* handle(const std::string& wire);
  void run();
  void look_for_the_end();
  Error why_broken() const;
  void reported(rd_kafka_event_t* event, CompletionBatch& batch);

  const std::shared_ptr<Connection> connection_;
  EventLoop& loop_;
  rd_kafka_t* client_ = nullptr;
  Queue queue_;
  Deadlines deadlines_;
  std::atomic<bool> stopping_{false}, broken_{false};
  std::atomic<int> producing_{0};  // calls that are handing records over; close() waits for them
  std::mutex mutex_;
  std::unordered_map<std::string, TopicHandle> handles_;  // guarded by mutex_; librdkafka's own live with the client
  bool closed_ = false;                                   // guarded by mutex_
  std::thread thread_;
};

}  // namespace prism::kafka
