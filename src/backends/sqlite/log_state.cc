#include "backends/sqlite/log_state.h"

#include <algorithm>

namespace prism::sqlite {

void Topic::note_end(std::uint32_t partition, std::uint64_t end) noexcept {
  auto& known = ends[partition];
  std::uint64_t old = known.load(std::memory_order_acquire);
  while (old < end && !known.compare_exchange_weak(old, end, std::memory_order_acq_rel)) {
  }
}

void Topic::listen(const std::shared_ptr<Listener>& listener) {
  const std::lock_guard lock(mutex);
  listeners.push_back(listener);
}

void Topic::unlisten(const std::shared_ptr<Listener>& listener) {
  const std::lock_guard lock(mutex);
  std::erase(listeners, listener);
}

void Topic::wake(std::uint64_t mask, CompletionBatch& batch) {
  const std::lock_guard lock(mutex);
  for (const auto& listener : listeners) {
    if ((listener->mask.load(std::memory_order_acquire) & mask) != 0) listener->wake.notify_into(batch);
  }
}

void Topic::wake_all(CompletionBatch& batch) {
  const std::lock_guard lock(mutex);
  for (const auto& listener : listeners) listener->wake.notify_into(batch);
}

Result<std::uint64_t> first_offset(Connection& connection, const Topic& topic, std::uint32_t partition) {
  PRISM_TRY(Query query,
            connection.prepare("SELECT seq FROM prism_records WHERE seq >= ?1 AND seq < ?2 ORDER BY seq LIMIT 1"));
  query.bind(1, topic.seq(partition, 0)).bind(2, topic.seq(partition + 1, 0));
  PRISM_TRY(const bool row, query.step());
  if (row) return Topic::offset_of(query.integer(0));
  return end_offset(connection, topic, partition);
}

Result<std::uint64_t> end_offset(Connection& connection, const Topic& topic, std::uint32_t partition, WallTime* last) {
  PRISM_TRY(Query query,
            connection.prepare("SELECT seq, substr(data, 1, 9) FROM prism_records WHERE seq >= ?1 AND seq < ?2 "
                               "ORDER BY seq DESC LIMIT 1"));
  query.bind(1, topic.seq(partition, 0)).bind(2, topic.seq(partition + 1, 0));
  PRISM_TRY(const bool row, query.step());
  if (!row) return 0;
  if (last != nullptr) {
    PRISM_TRY(*last, record_time(query.blob(1)));
  }
  return Topic::offset_of(query.integer(0)) + 1;
}

namespace {

// The first offset in [from, to) whose record is not older: times do not go back within a partition.
Result<std::uint64_t> first_at(Connection& connection, const Topic& topic, std::uint32_t partition, std::uint64_t from,
                               std::uint64_t to, WallTime time) {
  PRISM_TRY(Query query,
            connection.prepare("SELECT seq, substr(data, 1, 9) FROM prism_records WHERE seq >= ?1 AND seq < ?2 "
                               "ORDER BY seq LIMIT 1"));
  while (from < to) {
    const std::uint64_t middle = from + (to - from) / 2;
    query.reset();
    query.bind(1, topic.seq(partition, middle)).bind(2, topic.seq(partition, to));
    PRISM_TRY(const bool row, query.step());
    if (!row) {
      to = middle;
      continue;
    }
    PRISM_TRY(const WallTime found, record_time(query.blob(1)));
    if (found < time) {
      from = Topic::offset_of(query.integer(0)) + 1;
    } else {
      to = middle;
    }
  }
  return from;
}

}  // namespace

Result<std::uint64_t> resolve(Connection& connection, const Topic& topic, std::uint32_t partition, const Start& start) {
  PRISM_TRY(const std::uint64_t end, end_offset(connection, topic, partition));
  if (std::holds_alternative<Latest>(start.at)) return end;
  PRISM_TRY(const std::uint64_t first, first_offset(connection, topic, partition));
  if (const auto* time = std::get_if<WallTime>(&start.at)) {
    return first_at(connection, topic, partition, first, end, *time);
  }
  if (const auto* position = std::get_if<Position>(&start.at)) {
    for (const auto& part : position->parts()) {
      if (part.source == topic.incarnation && part.partition == partition)
        return std::clamp(part.offset + 1, first, end);
    }
  }
  return first;
}

void RecordBatch::add(std::uint32_t partition, std::uint64_t offset, std::string_view data) {
  rows_.push_back({partition, offset, memory_.size(), data.size()});
  memory_.append(data);
}

Result<bool> RecordBatch::read(Connection& connection, const Topic& topic, std::uint32_t partition, std::uint64_t from,
                               std::uint64_t to, std::size_t& count, std::size_t& bytes) {
  PRISM_TRY(Query query,
            connection.prepare("SELECT seq, data FROM prism_records WHERE seq >= ?1 AND seq < ?2 ORDER BY seq"));
  query.bind(1, topic.seq(partition, from)).bind(2, topic.seq(partition, to));
  while (count != 0) {
    PRISM_TRY(const bool row, query.step());
    if (!row) return true;
    const auto data = query.blob(1);
    if (!rows_.empty() && data.size() > bytes) return false;
    add(partition, Topic::offset_of(query.integer(0)), data);
    --count;
    bytes -= std::min(bytes, data.size());
  }
  return false;
}

Result<void> RecordBatch::read(Connection& connection, const Topic& topic, std::uint32_t partition,
                               const std::vector<std::uint64_t>& offsets) {
  PRISM_TRY(Query query, connection.prepare("SELECT data FROM prism_records WHERE seq = ?1"));
  for (const std::uint64_t offset : offsets) {
    query.reset();
    query.bind(1, topic.seq(partition, offset));
    PRISM_TRY(const bool row, query.step());
    if (row) add(partition, offset, query.blob(0));
  }
  return {};
}

Result<std::vector<RecordBatch::Item>> RecordBatch::decode() && {
  const auto memory = std::make_shared<const std::string>(std::move(memory_));
  const std::shared_ptr<const void> owner = memory;
  std::vector<Item> items;
  items.reserve(rows_.size());
  for (const Row& row : rows_) {
    PRISM_TRY(Record record, decode_record(owner, std::string_view(*memory).substr(row.begin, row.size)));
    items.push_back({row.partition, row.offset, std::move(record)});
  }
  return items;
}

}  // namespace prism::sqlite
