#include "capabilities/delivery_window.h"

#include <algorithm>

#include "base/varint.h"

namespace prism {

std::string Progress::encode_attempts() const {
  std::string out;
  std::uint64_t at = acked.below();
  for (const auto& [offset, attempt] : attempts) {
    if (offset < at) continue;
    put_varint(out, offset - at);
    put_varint(out, attempt);
    at = offset;
  }
  return out;
}

std::optional<Progress> Progress::decode(std::uint64_t acked_below, std::string_view ranges,
                                         std::uint64_t delivered_below, std::string_view attempts) {
  Progress p;
  auto acked = AckSet::decode(acked_below, ranges);
  if (!acked) return std::nullopt;
  p.acked = std::move(*acked);
  p.delivered_below = delivered_below;
  std::uint64_t at = acked_below;
  while (!attempts.empty()) {
    const auto gap = take_varint(attempts);
    const auto attempt = gap ? take_varint(attempts) : std::nullopt;
    if (!attempt) return std::nullopt;
    at += *gap;
    p.attempts.insert_or_assign(at, static_cast<std::uint32_t>(*attempt));
  }
  return p;
}

DeliveryWindow::DeliveryWindow(std::uint64_t epoch, Progress progress, Limits limits)
    : epoch_(epoch),
      progress_(std::move(progress)),
      limits_(limits),
      inherited_below_(progress_.delivered_below),
      base_(progress_.acked.below()) {}

void DeliveryWindow::tick(Clock::time_point now) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const auto [first, last] = deadlines_.begin()->second;
    deadlines_.erase(deadlines_.begin());
    for (std::uint64_t o = std::max(first, base_); o <= last && o < next_fetch(); ++o) {
      if (at(o).state == State::delivered && at(o).at <= now) take_back(o, now, now);
    }
  }
  while (!delayed_.empty() && delayed_.begin()->first <= now) {
    const Ready item = delayed_.begin()->second;
    delayed_.erase(delayed_.begin());
    if (item.key == 0) {
      if (knows(item.offset) && at(item.offset).state == State::pending) ready_.push_back(item);
    } else if (const auto it = keys_.find(item.key); it != keys_.end()) {
      enqueue(item.key, it->second, now);
    }
  }
}

std::optional<Clock::time_point> DeliveryWindow::next_tick() {
  while (!deadlines_.empty() && deadlines_.begin()->second.second < base_) deadlines_.erase(deadlines_.begin());
  std::optional<Clock::time_point> next;
  if (!deadlines_.empty()) next = deadlines_.begin()->first;
  if (!delayed_.empty() && (!next || delayed_.begin()->first < *next)) next = delayed_.begin()->first;
  return next;
}

bool DeliveryWindow::wanted(DeliveryBudget& budget, Clock::time_point now, std::vector<std::uint64_t>& offsets) const {
  for (const Ready& item : ready_) {
    if (budget.count == 0) return false;
    if (item.key == 0) {
      if (!knows(item.offset) || at(item.offset).state != State::pending) continue;
      if (!budget.allows(at(item.offset).bytes)) return false;
      budget.take(at(item.offset).bytes);
      offsets.push_back(item.offset);
      continue;
    }
    const auto it = keys_.find(item.key);
    if (it == keys_.end()) continue;
    std::size_t in_flight = it->second.in_flight;
    for (std::uint64_t o = it->second.cursor; o != kNone && in_flight < limits_.max_per_key; o = at(o).next) {
      const Slot& slot = at(o);
      if (slot.state != State::pending) continue;
      if (slot.at > now) break;
      if (!budget.allows(slot.bytes)) return false;
      budget.take(slot.bytes);
      offsets.push_back(o);
      ++in_flight;
    }
  }
  return true;
}

void DeliveryWindow::hand_out(std::uint64_t offset, std::uint32_t serial, DeliveryBudget& budget,
                              std::vector<Handed>& out) {
  Slot& slot = at(offset);
  slot.state = State::delivered;
  slot.serial = serial;
  slot.at = Clock::time_point::max();  // until delivered()
  if (++slot.attempt > 1) progress_.attempts.insert_or_assign(offset, slot.attempt);
  progress_.delivered_below = std::max(progress_.delivered_below, offset + 1);
  ++version_;
  ++in_flight_;
  in_flight_bytes_ += slot.bytes;
  budget.take(slot.bytes);
  out.push_back({offset, slot.attempt});
  if (slot.key != 0) {
    Key& key = keys_[slot.key];
    ++key.in_flight;
    move_cursor(key, slot.next);
  }
}

void DeliveryWindow::move_cursor(Key& key, std::uint64_t from) {
  while (from != kNone && at(from).state != State::pending) from = at(from).next;
  key.cursor = from;
}

void DeliveryWindow::enqueue(std::uint64_t id, Key& key, Clock::time_point now) {
  if (key.queued || !deliverable(key, now)) return;
  key.queued = true;
  ready_.push_back({id, 0});
}

bool DeliveryWindow::fetched(std::uint64_t offset, std::uint64_t id, std::size_t bytes, DeliveryBudget& budget,
                             Clock::time_point now, std::uint32_t serial, std::vector<Handed>& out) {
  if (offset < next_fetch()) return false;
  gone_below(offset);
  Slot slot{.key = id, .bytes = static_cast<std::uint32_t>(bytes)};
  if (progress_.acked.contains(offset)) {
    slot.state = State::done;
    slots_.push_back(slot);
    trim();
    return false;
  }
  if (offset < inherited_below_) {
    const auto it = progress_.attempts.find(offset);
    slot.attempt = it != progress_.attempts.end() ? it->second : 1;
  }
  if (id == 0) {
    slots_.push_back(slot);
    if (budget.allows(bytes)) {
      hand_out(offset, serial, budget, out);
      return true;
    }
    ready_.push_back({0, offset});
    return false;
  }
  Key& key = keys_[id];
  slot.previous = key.last;
  slots_.push_back(slot);
  if (key.last != kNone) at(key.last).next = offset;
  key.last = offset;
  if (key.first == kNone) key.first = offset;
  if (key.cursor == kNone) key.cursor = offset;
  if (key.cursor == offset && deliverable(key, now) && budget.allows(bytes)) {
    hand_out(offset, serial, budget, out);
    return true;
  }
  enqueue(id, key, now);
  return false;
}

void DeliveryWindow::gone(std::uint64_t offset) {
  if (!knows(offset) || at(offset).state != State::pending) return;
  const std::uint64_t id = at(offset).key;
  record_ack(offset);
  if (id != 0) {
    Key& key = keys_[id];
    if (key.cursor == offset) move_cursor(key, at(offset).next);
  }
  // As a delivery that has been acknowledged, in the counts too.
  at(offset).state = State::settling;
  ++in_flight_;
  in_flight_bytes_ += at(offset).bytes;
  if (id != 0) ++keys_[id].in_flight;
  finish_ack(offset);
}

void DeliveryWindow::gone_below(std::uint64_t offset) {
  if (offset <= next_fetch()) return;
  progress_.acked.add_range(next_fetch(), offset);
  ++version_;
  slots_.resize(offset - base_, Slot{.state = State::done});
  trim();
}

void DeliveryWindow::delivered(std::uint64_t first, std::uint64_t last, Clock::time_point now) {
  const auto deadline = now + limits_.ack_deadline;
  for (std::uint64_t o = std::max(first, base_); o <= last && o < next_fetch(); ++o) {
    if (at(o).state == State::delivered && at(o).at == Clock::time_point::max()) at(o).at = deadline;
  }
  deadlines_.emplace(deadline, std::pair(first, last));
}

bool DeliveryWindow::begin_ack(std::uint64_t offset, std::uint32_t serial) {
  if (!in_flight_as(offset, serial)) return false;
  at(offset).state = State::settling;
  return true;
}

bool DeliveryWindow::nack(std::uint64_t offset, std::uint32_t serial, Clock::time_point due) {
  if (!in_flight_as(offset, serial)) return false;
  take_back(offset, due, Clock::now());
  return true;
}

bool DeliveryWindow::extend(std::uint64_t offset, std::uint32_t serial, Clock::time_point until) {
  if (!in_flight_as(offset, serial)) return false;
  at(offset).at = until;
  deadlines_.emplace(until, std::pair(offset, offset));
  return true;
}

void DeliveryWindow::void_delivery(Slot& slot) {
  slot.state = State::pending;
  slot.at = {};
  --in_flight_;
  in_flight_bytes_ -= slot.bytes;
}

void DeliveryWindow::take_back(std::uint64_t offset, Clock::time_point due, Clock::time_point now) {
  Slot& slot = at(offset);
  void_delivery(slot);
  slot.at = due;
  if (slot.key == 0) {
    if (due > now) {
      delayed_.emplace(due, Ready{0, offset});
    } else {
      ready_.push_back({0, offset});
    }
    return;
  }
  Key& key = keys_[slot.key];
  --key.in_flight;
  for (std::uint64_t o = slot.next; o != kNone; o = at(o).next) {
    if (at(o).state != State::delivered) continue;
    void_delivery(at(o));
    --key.in_flight;
  }
  key.cursor = std::min(key.cursor, offset);  // kNone is the largest
  if (due > now) delayed_.emplace(due, Ready{slot.key, 0});
  enqueue(slot.key, key, now);
}

void DeliveryWindow::finish_ack(std::uint64_t offset) {
  if (!knows(offset) || at(offset).state != State::settling) return;
  Slot& slot = at(offset);
  slot.state = State::done;
  --in_flight_;
  in_flight_bytes_ -= slot.bytes;
  progress_.attempts.erase(offset);
  if (slot.key != 0) {
    const auto it = keys_.find(slot.key);
    Key& key = it->second;
    --key.in_flight;
    (slot.previous != kNone ? at(slot.previous).next : key.first) = slot.next;
    (slot.next != kNone ? at(slot.next).previous : key.last) = slot.previous;
    if (key.first == kNone) {
      keys_.erase(it);
    } else {
      enqueue(slot.key, key, Clock::now());
    }
  }
  trim();
}

void DeliveryWindow::cancel_ack(std::uint64_t offset, Clock::time_point now) {
  progress_.acked.remove(offset);
  ++version_;
  if (!knows(offset) || at(offset).state != State::settling) return;
  at(offset).state = State::delivered;
  at(offset).at = std::max(at(offset).at, now + std::chrono::seconds(1));
  deadlines_.emplace(at(offset).at, std::pair(offset, offset));
}

void DeliveryWindow::trim() {
  while (!slots_.empty() && slots_.front().state == State::done) {
    slots_.pop_front();
    ++base_;
  }
}

}  // namespace prism
