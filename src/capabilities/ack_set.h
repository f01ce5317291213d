// AckSet: which offsets of a partition are acknowledged: all below a floor, and ranges above it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace prism {

class AckSet {
 public:
  explicit AckSet(std::uint64_t below = 0) noexcept : below_(below) {}

  std::uint64_t below() const noexcept { return below_; }
  std::size_t ranges() const noexcept { return ranges_.size(); }
  bool contains(std::uint64_t offset) const noexcept;
  void add(std::uint64_t offset) { add_range(offset, offset + 1); }
  void add_range(std::uint64_t from, std::uint64_t to);  // [from, to)
  void remove(std::uint64_t offset);

  // The ranges only; the floor is kept beside them.
  std::string encode_ranges() const;
  // None: this is no encoding of ranges.
  static std::optional<AckSet> decode(std::uint64_t below, std::string_view ranges);

 private:
  std::uint64_t below_;
  std::map<std::uint64_t, std::uint64_t> ranges_;  // first -> end, apart from each other, all above below_
};

}  // namespace prism
