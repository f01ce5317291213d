// Consumer: a member of a consumer group.
//
// A client of librdkafka with a thread of its own, which takes its events: records, assignments (cooperative: what a
// member keeps it goes on with), answers to commits. The thread keeps records in memory until they are acknowledged; a
// DeliveryWindow for each partition says which may be delivered. A commit holds, for each partition, the offset below
// which all is acknowledged and in its metadata what is beyond (codec.h); one is under way at a time, and what comes
// meanwhile goes with the next. A partition is given back only when no commit is under way any more: none can come
// after those of its next owner.
#pragma once

#include <librdkafka/rdkafka.h>

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backends/kafka/connection.h"
#include "backends/kafka/deadlines.h"
#include "backends/kafka/topic.h"
#include "capabilities/delivery_window.h"
#include "runtime/loop.h"

namespace prism::kafka {

// Kafka's name of the group that holds where `group` was asked to move; see README.md.
std::string seek_group(const std::string& wire_group);
// The offsets that `start` means, by partition. Blocks.
Result<std::vector<std::uint64_t>> resolve(Admin& admin, const Topic& topic, const Start& start,
                                           Clock::time_point deadline);

class Consumer : public std::enable_shared_from_this<Consumer> {
 public:
  Consumer(std::shared_ptr<Connection> connection, EventLoop& loop, TopicPtr topic, std::string wire_group,
           GroupSpec spec);

  const std::string& wire_group() const noexcept { return wire_group_; }
  const Topic& topic() const noexcept { return *topic_; }
  Result<void> start();  // joins the group; blocks for a moment

  static Task<Result<Batch<Delivery>>> receive(std::shared_ptr<Consumer> self, Context context, std::size_t max,
                                               std::size_t max_bytes);
  static Task<Batch<Settled>> settle(std::shared_ptr<Consumer> self, Context context, Batch<Settle> settles);
  // Gives everything back and waits until that is done. Idempotent.
  static Task<void> leave(std::shared_ptr<Consumer> self);
  void abandon();      // the same, without waiting
  void check_moves();  // the group may have been moved

 private:
  struct Stored {
    Record record;
    std::size_t weight = 0;  // in memory
  };
  // The acks of one settle().
  struct Waiter {
    Waiter(EventLoop& loop, std::size_t n) : results(n, Settled::stale), shot(std::make_shared<OneShot<void>>(&loop)) {}
    Batch<Settled> results;  // guarded by mutex_ while acks are open
    std::size_t open = 0;    // guarded by mutex_
    std::shared_ptr<OneShot<void>> shot;
  };
  struct Ack {
    std::uint64_t offset;
    std::shared_ptr<Waiter> waiter;
    std::size_t index;
  };
  struct Incoming {
    std::uint32_t partition;
    std::uint64_t offset;
    Record record;
    bool end = false;  // no record: all before the offset have been read
  };
  struct Owned {
    DeliveryWindow window;
    std::optional<Id128> seek;  // the last move that was obeyed
    std::map<std::uint64_t, Stored> records;
    std::deque<Incoming> waiting;  // read, and not yet known to the window
    std::vector<Ack> acks;         // that go with the next commit
    std::uint64_t durable_version = 0;
    bool uncommitted = false;  // nothing has been committed here yet
    bool fresh = true;         // no record has come since it was taken over
    bool paused = false;
    std::optional<Clock::time_point> drain_until;  // it is to be given back
    bool given_up = false;                         // no more settling: only its last commit is waited for
  };
  struct Commit {
    struct Part {
      std::uint32_t partition;
      std::uint64_t epoch;
      std::uint64_t version;
      std::vector<Ack> acks;
    };
    std::vector<Part> parts;
  };

  // All of these on the consumer's thread.
  void run();
  void handle(rd_kafka_event_t* event, std::vector<Incoming>& got);
  void take(std::vector<Incoming> got);
  void assigned(const rd_kafka_topic_partition_list_t* partitions);
  void revoked(const rd_kafka_topic_partition_list_t* partitions);
  void unassign();
  void committed(rd_kafka_event_t* event);
  void keep(Clock::time_point now, CompletionBatch& batch);
  void watch_moves();
  void pause_or_resume();
  bool may_close(Clock::time_point now);
  void finish();

  void commit_if_due(Clock::time_point now);                                 // mutex_ held
  void answer(std::vector<Ack>& acks, Settled how, CompletionBatch& batch);  // mutex_ held
  void drop(std::uint32_t partition, Settled how, CompletionBatch& batch);   // mutex_ held
  // Makes the next record that waits known to the window.
  void feed(Owned& owned, DeliveryBudget& budget, Clock::time_point now, std::vector<DeliveryWindow::Handed>& handed);
  Owned* find(std::uint32_t partition, std::uint64_t epoch);  // mutex_ held
  DeliveryWindow::Limits limits() const;
  std::size_t buffer_limit() const noexcept;
  std::string make_token(std::uint32_t partition, std::uint64_t offset, std::uint64_t epoch,
                         std::uint32_t serial) const;

  const std::shared_ptr<Connection> connection_;
  EventLoop& loop_;
  const TopicPtr topic_;
  const std::string wire_group_;
  const GroupSpec spec_;
  const std::uint64_t nonce_;  // tells tokens of different consumers apart
  Notifier wake_;
  Deadlines deadlines_;

  rd_kafka_t* client_ = nullptr;
  Queue queue_;
  std::atomic<bool> leaving_{false};
  std::atomic<bool> check_moves_{false};

  // Of the thread only.
  std::vector<std::uint32_t> revoking_;              // that are to be given back
  std::optional<Clock::time_point> revoking_since_;  // none: nothing is
  const Clock::time_point started_ = Clock::now();
  bool ever_assigned_ = false;
  std::optional<Clock::time_point> leaving_since_, closing_since_;
  Clock::time_point next_move_check_{};
  bool gone_ = false;  // has lost its session for good

  std::mutex mutex_;
  // All guarded by mutex_.
  std::map<std::uint32_t, Owned> owned_;
  std::size_t buffered_ = 0;  // bytes that all records in memory take
  std::optional<Commit> commit_;
  Clock::time_point next_commit_{};  // after one that failed
  std::optional<Clock::time_point> write_due_;
  std::optional<Error> error_;  // for the next receive()
  bool ended_ = false;          // the thread is through
  std::uint64_t epochs_ = 0;
  std::uint32_t serial_ = 0;
  std::uint32_t rotation_ = 0;
};

}  // namespace prism::kafka
