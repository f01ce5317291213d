#include "capabilities/position.h"

#include <algorithm>
#include <cstring>

namespace prism {
namespace {

bool key_less(const PositionPart& a, const PositionPart& b) {
  return a.source != b.source ? a.source < b.source : a.partition < b.partition;
}
constexpr char kVersion = 1;
constexpr std::size_t kPartBytes = 16 + 4 + 8;

template <class U>
void put(std::string& out, U value) {
  for (std::size_t i = 0; i < sizeof(U); ++i) out += static_cast<char>(value >> (8 * i) & 0xff);
}
template <class U>
U take(std::string_view& in) {
  U value = 0;
  for (std::size_t i = 0; i < sizeof(U); ++i) value |= static_cast<U>(static_cast<unsigned char>(in[i])) << (8 * i);
  in.remove_prefix(sizeof(U));
  return value;
}

}  // namespace

void Position::merge(const Position& other) {
  for (const auto& part : other.parts_) {
    const auto it = std::lower_bound(parts_.begin(), parts_.end(), part, key_less);
    if (it != parts_.end() && it->source == part.source && it->partition == part.partition) {
      it->offset = std::max(it->offset, part.offset);
    } else {
      parts_.insert(it, part);
    }
  }
}

Position::Order Position::compare(const Position& reader) const {
  bool behind = false;
  for (const auto& part : parts_) {
    const auto it = std::lower_bound(reader.parts_.begin(), reader.parts_.end(), part, key_less);
    if (it != reader.parts_.end() && it->source == part.source && it->partition == part.partition) {
      behind = behind || it->offset < part.offset;
      continue;
    }
    // The reader knows the source but has seen nothing of this partition yet; or it reads another source altogether.
    const bool knows_source = std::any_of(reader.parts_.begin(), reader.parts_.end(),
                                          [&](const PositionPart& p) { return p.source == part.source; });
    if (!knows_source) return Order::unknown;
    behind = true;
  }
  return behind ? Order::behind : Order::reached;
}

std::string Position::encode() const {
  std::string out;
  out.reserve(1 + parts_.size() * kPartBytes);
  out += kVersion;
  for (const auto& part : parts_) {
    out.append(reinterpret_cast<const char*>(part.source.data()), part.source.size());
    put(out, part.partition);
    put(out, part.offset);
  }
  return out;
}

Result<Position> Position::decode(std::string_view text) {
  if (text.empty() || text.front() != kVersion || (text.size() - 1) % kPartBytes != 0) {
    return fail(Code::invalid_argument, "INVALID_POSITION", "this is not a position that Prism has given out");
  }
  text.remove_prefix(1);
  Position position;
  while (!text.empty()) {
    PositionPart part;
    std::memcpy(part.source.data(), text.data(), part.source.size());
    text.remove_prefix(part.source.size());
    part.partition = take<std::uint32_t>(text);
    part.offset = take<std::uint64_t>(text);
    position.merge(Position(part));
  }
  return position;
}

}  // namespace prism
