// EventLog: topics of partitioned, ordered records with consumer groups.
//
// Every method may be called from any thread and resumes on a loop thread. Any number of calls may be under way on an
// EventLog; a LogReader takes one call at a time; a GroupConsumer one receive() and any number of settle().
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/types.h"
#include "capabilities/position.h"
#include "runtime/context.h"
#include "runtime/task.h"

namespace prism {

struct Record {
  std::string id;   // unique; a repeat of the same message carries the same id
  std::string key;  // records of one key keep their order; empty: none
  Headers headers;
  Bytes body;       // at most TopicInfo::max_record_bytes together with id, key and headers
  WallTime time{};  // of the append, set by the log; on append: ignored
};

struct Appended {
  Position at;
  Durability durability = Durability::memory;
  bool duplicate = false;  // the log had a record of this id already (only where features().deduplicates)
};

struct TopicSpec {
  std::string name;
  std::uint32_t partitions = 0;   // 0: the backend's default. An existing topic keeps what it has.
  std::uint32_t replication = 0;  // copies, where the log keeps several; 0: the backend's default. Likewise.
};

struct TopicInfo {
  std::string name;
  std::uint32_t partitions = 1;
  Id128 incarnation{};  // of this topic; another one after it was deleted and made again
  std::size_t max_record_bytes = 0;
};

// What every log takes as the name of a topic: 1 to 249 bytes without control characters (Kafka's limit is the
// smallest).
inline constexpr std::size_t kMaxTopicBytes = 249;
Result<void> check_topic_name(std::string_view name);  // INVALID_TOPIC

struct LogFeatures {
  Durability durability = Durability::memory;
  std::size_t max_record_bytes = 1UL << 20;  // of a topic that this log makes: body, id, key and headers together
  bool deduplicates = false;                 // append drops a record whose id it has seen recently
  bool persists_attempts = false;            // the delivery attempt of an unacknowledged record survives the consumer
};

struct Latest {};
// Where a new group or a reader begins; a group that has been there before goes on where it was.
struct Start {
  std::variant<std::monostate /*earliest*/, Position /*after it*/, WallTime /*first record at or after*/, Latest> at;
};

struct GroupSpec {
  std::string topic;
  std::string group;
  Start start;
  Clock::duration ack_deadline = std::chrono::seconds(30);  // after it an unsettled delivery is delivered again
  std::size_t max_bytes = 16UL << 20;  // delivered and not settled, at most (one record is always allowed)
  std::size_t max_per_key = 100;       // a run of one key's consecutive records in flight, at most
  std::string client;                  // for people: who consumes
};

struct Delivery {
  std::string token;  // names this delivery only; stale after a redelivery, a revocation or the end of the consumer
  Record record;
  Position at;
  std::uint32_t attempt = 1;  // 1: first delivery to this group, as far as the log knows
};

struct Settle {
  enum class Do : std::uint8_t {
    ack,     // done with it
    nack,    // deliver it again after `delay`, and the later ones of its key after it
    extend,  // the acknowledgement deadline begins anew: `delay` from now
  };
  std::string token;
  Do what = Do::ack;
  Clock::duration delay{0};
  std::string reason;
};
enum class Settled : std::uint8_t {
  ok,       // an ack survives a crash
  stale,    // the token is of an earlier delivery: nothing was changed
  unknown,  // it may or may not have been kept
  invalid,  // the consumer has never given this token: nothing was changed
};

struct GroupFloor {
  std::uint32_t partition = 0;
  std::uint64_t acked_below = 0;  // every record with a smaller offset is acknowledged
  std::uint64_t begin = 0;        // the first offset that still exists
  std::uint64_t end = 0;          // the offset of the next record to be appended
  bool ever_committed = false;    // false: the group has never acknowledged or joined here
};

// Reads one topic without a group; the owner remembers the position.
class LogReader {
 public:
  virtual ~LogReader() = default;
  // The next records, in order per partition; waits for at least one until the deadline, then answers an empty batch.
  virtual Task<Result<Batch<std::pair<Record, Position>>>> next(Context context, std::size_t max_bytes) = 0;
  virtual Task<void> close(Context context) = 0;
};

class GroupConsumer {
 public:
  virtual ~GroupConsumer() = default;
  // Waits for at least one delivery until the deadline, then answers an empty batch.
  virtual Task<Result<Batch<Delivery>>> receive(Context context, std::size_t max, std::size_t max_bytes) = 0;
  virtual Task<Batch<Settled>> settle(Context context, Batch<Settle> settles) = 0;
  // Gives its partitions back; unsettled deliveries go to another consumer of the group at once.
  virtual Task<void> close(Context context) = 0;
};

class EventLog {
 public:
  virtual ~EventLog() = default;
  virtual const LogFeatures& features() const noexcept = 0;

  // Makes the topic where it is missing.
  virtual Task<Result<TopicInfo>> ensure_topic(Context context, TopicSpec spec) = 0;
  virtual Task<Result<TopicInfo>> topic(Context context, std::string name) = 0;  // TOPIC_NOT_FOUND
  virtual Task<Result<std::vector<TopicInfo>>> topics(Context context) = 0;

  // A result for each record. Records of one key keep the order of the batch, and of earlier calls that were awaited or
  // came from the same caller in order. A failed record fails the later ones of its key in this batch: no gap.
  // TOPIC_NOT_FOUND, RECORD_TOO_LARGE, LOG_FULL; unknown_outcome where it may have been appended.
  virtual Task<Batch<Result<Appended>>> append(Context context, std::string topic, Batch<Record> records) = 0;
  // One partition or all.
  virtual Task<Result<std::unique_ptr<LogReader>>> read(Context context, std::string topic,
                                                        std::optional<std::uint32_t> partition, Start start) = 0;
  virtual Task<Result<std::unique_ptr<GroupConsumer>>> join(Context context, GroupSpec spec) = 0;
  // The groups that have ever joined the topic.
  virtual Task<Result<std::vector<std::string>>> groups(Context context, std::string topic) = 0;
  // One entry a partition, also for a group that does not exist.
  virtual Task<Result<Batch<GroupFloor>>> floors(Context context, std::string topic, std::string group) = 0;
  // Moves a group, present consumers included: their unsettled deliveries become stale.
  virtual Task<Result<void>> seek(Context context, std::string topic, std::string group, Start start) = 0;
  // The position of the last record of each partition that has any.
  virtual Task<Result<Position>> end(Context context, std::string topic) = 0;
  virtual Task<void> close(Context context) = 0;
};

}  // namespace prism
