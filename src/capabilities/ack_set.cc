#include "capabilities/ack_set.h"

#include <algorithm>
#include <iterator>

#include "base/varint.h"

namespace prism {

bool AckSet::contains(std::uint64_t offset) const noexcept {
  if (offset < below_) return true;
  auto it = ranges_.upper_bound(offset);
  return it != ranges_.begin() && std::prev(it)->second > offset;
}

void AckSet::add_range(std::uint64_t from, std::uint64_t to) {
  from = std::max(from, below_);
  if (from >= to) return;
  if (from == below_ && ranges_.empty()) {  // acknowledged in order: the usual case
    below_ = to;
    return;
  }
  auto it = ranges_.upper_bound(from);
  if (it != ranges_.begin() && std::prev(it)->second >= from) {
    --it;
    it->second = std::max(it->second, to);
  } else {
    it = ranges_.emplace_hint(it, from, to);
  }
  for (auto next = std::next(it); next != ranges_.end() && next->first <= it->second; next = ranges_.erase(next)) {
    it->second = std::max(it->second, next->second);
  }
  if (it->first == below_) {
    below_ = it->second;
    ranges_.erase(it);
  }
}

void AckSet::remove(std::uint64_t offset) {
  if (offset < below_) {
    if (offset + 1 < below_) ranges_.emplace(offset + 1, below_);
    below_ = offset;
    return;
  }
  auto it = ranges_.upper_bound(offset);
  if (it == ranges_.begin()) return;
  --it;
  const std::uint64_t end = it->second;
  if (end <= offset) return;
  if (it->first == offset) {
    it = ranges_.erase(it);
  } else {
    it->second = offset;
  }
  if (offset + 1 < end) ranges_.emplace(offset + 1, end);
}

std::string AckSet::encode_ranges() const {
  std::string out;
  std::uint64_t at = below_;
  for (const auto& [from, to] : ranges_) {
    put_varint(out, from - at);
    put_varint(out, to - from);
    at = to;
  }
  return out;
}

std::optional<AckSet> AckSet::decode(std::uint64_t below, std::string_view ranges) {
  AckSet set(below);
  std::uint64_t at = below;
  while (!ranges.empty()) {
    const auto gap = take_varint(ranges);
    const auto size = gap ? take_varint(ranges) : std::nullopt;
    if (!size) return std::nullopt;
    at += *gap;
    set.add_range(at, at + *size);
    at += *size;
  }
  return set;
}

}  // namespace prism
