// DeliveryWindow: what one owner of one partition knows of the records between the group's floor and the next one to be
// read.
//
// Pure bookkeeping, in memory, without bodies: a record that cannot be delivered when it is read (its key is busy) is
// read again when it can. Not thread-safe.
//
// The order of a key: its records are delivered in order, at most `max_per_key` of them unsettled at a time. When one
// is to be delivered again, all later ones of its key that are delivered and not settled are void, and follow it.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/types.h"
#include "capabilities/ack_set.h"

namespace prism {

// What one receive() may still take.
struct DeliveryBudget {
  std::size_t count = 0;   // deliveries
  std::size_t bytes = 0;   // of this call; the first delivery may exceed it
  std::size_t credit = 0;  // bytes that may be in flight yet; exceeded only where nothing is
  bool nothing_in_flight = true;
  bool empty = true;  // nothing taken yet
  bool allows(std::size_t n) const noexcept {
    if (count == 0) return false;
    return empty ? (n <= credit || nothing_in_flight) : n <= bytes && n <= credit;
  }
  void take(std::size_t n) noexcept {
    --count;
    bytes -= std::min(bytes, n);
    credit -= std::min(credit, n);
    empty = false;
    nothing_in_flight = false;
  }
};

// What is kept of a group in one partition.
struct Progress {
  AckSet acked;
  std::uint64_t delivered_below = 0;                // records from here on were never delivered
  std::map<std::uint64_t, std::uint32_t> attempts;  // of unsettled records, where it is not 1
  std::string encode_attempts() const;
  // None: the parts are no encodings.
  static std::optional<Progress> decode(std::uint64_t acked_below, std::string_view ranges,
                                        std::uint64_t delivered_below, std::string_view attempts);
};

class DeliveryWindow {
 public:
  struct Limits {
    std::size_t max_per_key = 100;
    std::size_t max_records = 65536;  // between the floor and the next record to be read
    std::size_t max_ranges = 4096;    // acknowledged out of order
    Clock::duration ack_deadline = std::chrono::seconds(30);
  };
  // What to put into a delivery.
  struct Handed {
    std::uint64_t offset;
    std::uint32_t attempt;
  };

  DeliveryWindow(std::uint64_t epoch, Progress progress, Limits limits);

  std::uint64_t epoch() const noexcept { return epoch_; }
  const Progress& progress() const noexcept { return progress_; }
  std::uint64_t version() const noexcept { return version_; }  // changes whenever progress() does

  // Deadlines that have passed and delays that are over, as of `now`. To be called before planning.
  void tick(Clock::time_point now);
  std::optional<Clock::time_point> next_tick();  // when it has something to do again

  // Adds the offsets of records that are known, not in flight and deliverable now, and takes them from the budget.
  // False: it did not suffice for all.
  bool wanted(DeliveryBudget& budget, Clock::time_point now, std::vector<std::uint64_t>& offsets) const;
  bool may_fetch() const noexcept {
    return slots_.size() < limits_.max_records && progress_.acked.ranges() < limits_.max_ranges;
  }
  std::uint64_t next_fetch() const noexcept { return base_ + slots_.size(); }

  // Delivers what is ready and `has` says is at hand.
  template <class Has>
  void deliver_ready(DeliveryBudget& budget, Clock::time_point now, std::uint32_t serial, Has has,
                     std::vector<Handed>& out);
  // A record just read, in the order of offsets, from next_fetch() on; offsets left out do not exist any more. True:
  // delivered.
  bool fetched(std::uint64_t offset, std::uint64_t key, std::size_t bytes, DeliveryBudget& budget,
               Clock::time_point now, std::uint32_t serial, std::vector<Handed>& out);
  // A known record that turned out not to exist any more; and all that were not fetched, below `offset`.
  void gone(std::uint64_t offset);
  void gone_below(std::uint64_t offset);
  // Ends the round: the deliveries of `serial` between the two offsets get their deadline.
  void delivered(std::uint64_t first, std::uint64_t last, Clock::time_point now);

  // Of a delivery that is in flight; false: it is not (stale).
  bool begin_ack(std::uint64_t offset,
                 std::uint32_t serial);  // until finish_ack or cancel_ack it is neither redelivered nor settled again
  bool nack(std::uint64_t offset, std::uint32_t serial, Clock::time_point due);
  bool extend(std::uint64_t offset, std::uint32_t serial, Clock::time_point until);

  // The stages of an ack: into progress() before it is written; away with the record once it is durable.
  void record_ack(std::uint64_t offset) {
    progress_.acked.add(offset);
    ++version_;
  }
  void finish_ack(std::uint64_t offset);
  void cancel_ack(std::uint64_t offset, Clock::time_point now);

  std::size_t in_flight() const noexcept { return in_flight_; }
  std::size_t in_flight_bytes() const noexcept { return in_flight_bytes_; }

 private:
  static constexpr std::uint64_t kNone = ~0ULL;
  enum class State : std::uint8_t { pending, delivered, settling, done };
  struct Slot {
    std::uint64_t key = 0;           // 0: none
    std::uint64_t previous = kNone;  // of its key
    std::uint64_t next = kNone;
    Clock::time_point at{};  // pending: not before; delivered: the deadline
    std::uint32_t bytes = 0;
    std::uint32_t serial = 0;
    std::uint32_t attempt = 0;  // deliveries so far
    State state = State::pending;
  };
  struct Key {
    std::uint64_t first = kNone;
    std::uint64_t last = kNone;
    std::uint64_t cursor = kNone;  // the first that is pending
    std::size_t in_flight = 0;
    bool queued = false;
  };
  struct Ready {
    std::uint64_t key;  // 0: the record alone
    std::uint64_t offset;
  };

  Slot& at(std::uint64_t offset) { return slots_[offset - base_]; }
  const Slot& at(std::uint64_t offset) const { return slots_[offset - base_]; }
  bool knows(std::uint64_t offset) const noexcept { return offset >= base_ && offset < next_fetch(); }
  bool in_flight_as(std::uint64_t offset, std::uint32_t serial) const noexcept {
    return knows(offset) && at(offset).state == State::delivered && at(offset).serial == serial;
  }
  bool deliverable(const Key& key, Clock::time_point now) const {
    return key.cursor != kNone && key.in_flight < limits_.max_per_key && at(key.cursor).at <= now;
  }
  void hand_out(std::uint64_t offset, std::uint32_t serial, DeliveryBudget& budget, std::vector<Handed>& out);
  void move_cursor(Key& key, std::uint64_t from);
  void enqueue(std::uint64_t id, Key& key, Clock::time_point now);
  void take_back(std::uint64_t offset, Clock::time_point due, Clock::time_point now);
  void void_delivery(Slot& slot);
  void trim();

  std::uint64_t epoch_;
  Progress progress_;
  Limits limits_;
  std::uint64_t version_ = 0;
  std::uint64_t inherited_below_;  // below it an earlier owner may have delivered
  std::uint64_t base_;
  std::deque<Slot> slots_;
  std::unordered_map<std::uint64_t, Key> keys_;
  std::deque<Ready> ready_;
  std::multimap<Clock::time_point, Ready> delayed_;
  std::multimap<Clock::time_point, std::pair<std::uint64_t, std::uint64_t>> deadlines_;  // offsets, first to last
  std::size_t in_flight_ = 0;
  std::size_t in_flight_bytes_ = 0;
};

template <class Has>
void DeliveryWindow::deliver_ready(DeliveryBudget& budget, Clock::time_point now, std::uint32_t serial, Has has,
                                   std::vector<Handed>& out) {
  for (std::size_t n = ready_.size(); n != 0 && budget.count != 0; --n) {
    const Ready item = ready_.front();
    ready_.pop_front();
    if (item.key == 0) {
      if (!knows(item.offset) || at(item.offset).state != State::pending) continue;
      if (has(item.offset) && budget.allows(at(item.offset).bytes)) {
        hand_out(item.offset, serial, budget, out);
      } else {
        ready_.push_back(item);
      }
      continue;
    }
    const auto it = keys_.find(item.key);
    if (it == keys_.end()) continue;
    Key& key = it->second;
    while (deliverable(key, now) && has(key.cursor) && budget.allows(at(key.cursor).bytes)) {
      hand_out(key.cursor, serial, budget, out);
    }
    key.queued = false;
    enqueue(item.key, key, now);
  }
}

}  // namespace prism
