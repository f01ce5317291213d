// Position: where in its sources a write stands or a reader has come to. Opaque to clients.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"

namespace prism {

// `source` is the incarnation of a topic or database: a re-created topic is another source. `offset` is the position of
// the record itself, the first being 0 (for databases: a number that grows with every commit).
struct PositionPart {
  Id128 source{};
  std::uint32_t partition = 0;
  std::uint64_t offset = 0;
  friend bool operator==(const PositionPart&, const PositionPart&) = default;
};

// A set of parts, at most one for each (source, partition), sorted. Merging takes the later offset of each.
class Position {
 public:
  enum class Order : std::uint8_t {
    reached,  // the reader has seen everything up to this position
    behind,   // it has not yet
    unknown,  // it cannot tell: another source, another incarnation
  };

  Position() = default;
  explicit Position(PositionPart part) : parts_{part} {}

  const std::vector<PositionPart>& parts() const noexcept { return parts_; }
  bool empty() const noexcept { return parts_.empty(); }
  void merge(const Position& other);
  // Has a reader whose own position is `reader` (the last record that it has seen) reached this one?
  Order compare(const Position& reader) const;

  std::string encode() const;  // binary, for tokens; decode() refuses what encode() did not make
  static Result<Position> decode(std::string_view text);

  friend bool operator==(const Position&, const Position&) = default;

 private:
  std::vector<PositionPart> parts_;
};

}  // namespace prism
