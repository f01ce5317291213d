// What the parts of the embedded log share: its topics as this process knows them, and reading rows of records.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backends/sqlite/engine.h"
#include "backends/sqlite/event_log.h"
#include "backends/sqlite/record_codec.h"

namespace prism::sqlite {

class Consumer;

// Somebody who waits for records of a topic. `mask`: bit p % 64 set: those of partition p concern it.
struct Listener {
  explicit Listener(EventLoop& loop) : wake(loop) {}
  Notifier wake;
  std::atomic<std::uint64_t> mask{0};
};

// A topic never changes once it is made. Lives as long as the log.
struct Topic {
  // The end of a partition as the writing thread knows it; only that thread uses it.
  struct Cursor {
    std::uint64_t next = 0;           // committed
    WallTime last{};                  // time of the last record: times do not go back within a partition
    std::uint64_t generation = 0;     // Engine::foreign_generation() that this holds for; 0: not loaded
    std::uint64_t prepared_next = 0;  // of the open transaction, if this is its number
    WallTime prepared_last{};
    std::uint64_t transaction = 0;
  };

  std::int64_t id = 0;
  std::string name;
  std::uint32_t partitions = 1;
  std::uint64_t first_uid = 0;  // of partition 0; each partition of the file has a number of its own
  Id128 incarnation{};
  std::vector<Cursor> cursors;
  std::uint32_t keyless_partition = 0;  // of records without key in the transaction of this number; writing thread only
  std::uint64_t keyless_transaction = 0;
  std::unique_ptr<std::atomic<std::uint64_t>[]> ends;  // committed, as far as this process knows; they only grow

  std::mutex mutex;
  std::vector<std::shared_ptr<Listener>> listeners;  // guarded by mutex
  std::vector<std::weak_ptr<Consumer>> consumers;    // guarded by mutex

  static constexpr unsigned kOffsetBits = 40;
  std::int64_t seq(std::uint32_t partition, std::uint64_t offset) const noexcept {
    return static_cast<std::int64_t>((first_uid + partition) << kOffsetBits | offset);
  }
  static std::uint64_t offset_of(std::int64_t seq) noexcept {
    return static_cast<std::uint64_t>(seq) & ((1ULL << kOffsetBits) - 1);
  }
  void note_end(std::uint32_t partition, std::uint64_t end) noexcept;
  void listen(const std::shared_ptr<Listener>& listener);
  void unlisten(const std::shared_ptr<Listener>& listener);
  void wake(std::uint64_t mask, CompletionBatch& batch);  // those whom records of these partitions concern
  void wake_all(CompletionBatch& batch);
  Position position(std::uint32_t partition, std::uint64_t offset) const {
    return Position(PositionPart{incarnation, partition, offset});
  }
  TopicInfo info(std::size_t max_record_bytes) const { return {name, partitions, incarnation, max_record_bytes}; }
};

// --- reading, on any connection ---

Result<std::uint64_t> first_offset(Connection& connection, const Topic& topic,
                                   std::uint32_t partition);  // = end if there is none
// One past the last record. `last`: its time, if asked for.
Result<std::uint64_t> end_offset(Connection& connection, const Topic& topic, std::uint32_t partition,
                                 WallTime* last = nullptr);
// The first offset that a reader beginning at `start` reads.
Result<std::uint64_t> resolve(Connection& connection, const Topic& topic, std::uint32_t partition, const Start& start);

// Records read together: they share one piece of memory.
class RecordBatch {
 public:
  struct Item {
    std::uint32_t partition;
    std::uint64_t offset;
    Record record;
  };
  // In order, up to the offset `to`, until `count` records or `bytes` (at least one record). What was taken is
  // subtracted. True: all up to `to` was read.
  Result<bool> read(Connection& connection, const Topic& topic, std::uint32_t partition, std::uint64_t from,
                    std::uint64_t to, std::size_t& count, std::size_t& bytes);
  // These only; one that does not exist is left out.
  Result<void> read(Connection& connection, const Topic& topic, std::uint32_t partition,
                    const std::vector<std::uint64_t>& offsets);
  std::size_t size() const noexcept { return rows_.size(); }
  // In the order of reading. Ends the batch.
  Result<std::vector<Item>> decode() &&;

 private:
  struct Row {
    std::uint32_t partition;
    std::uint64_t offset;
    std::size_t begin;
    std::size_t size;
  };
  void add(std::uint32_t partition, std::uint64_t offset, std::string_view data);
  std::string memory_;
  std::vector<Row> rows_;
};

}  // namespace prism::sqlite
