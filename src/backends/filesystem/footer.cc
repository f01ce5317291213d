#include "backends/filesystem/footer.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string_view>

#include "backends/filesystem/errors.h"
#include "backends/filesystem/file.h"
#include "base/crc32c.h"

namespace prism::filesystem {
namespace {

// body | u32 length of the body | u32 CRC-32C of the body | magic. Integers are little-endian.
// body: u64 size | u32 CRC-32C of the content | i64 modified, microseconds since 1970 | etag | content type
//       | u32 number of metadata entries | (name | value)...; a string is a u32 length and its bytes.
constexpr std::string_view kMagic = "PRISMOB1";
constexpr std::size_t kTail = 16;
constexpr std::size_t kMaxBody = 64UL << 10;

template <class T>
void put_integer(std::string& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i)
    out += static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i) & 0xff);
}

void put_string(std::string& out, std::string_view text) {
  put_integer(out, static_cast<std::uint32_t>(text.size()));
  out += text;
}

class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}
  bool good() const { return good_; }
  bool at_end() const { return rest_.empty(); }
  std::string_view take(std::size_t n) {
    if (n > rest_.size()) {
      good_ = false;
      rest_ = {};
      return {};
    }
    const std::string_view out = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return out;
  }
  template <class T>
  T integer() {
    std::uint64_t value = 0;
    const std::string_view bytes = take(sizeof(T));
    for (std::size_t i = 0; i < bytes.size(); ++i)
      value |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    return static_cast<T>(value);
  }
  std::string string() { return std::string(take(integer<std::uint32_t>())); }

 private:
  std::string_view rest_;
  bool good_ = true;
};

}  // namespace

Result<std::string> encode_footer(const ObjectInfo& info) {
  std::string out;
  put_integer(out, info.size);
  put_integer(out, info.crc32c);
  put_integer(out, static_cast<std::int64_t>(info.modified.time_since_epoch().count()));
  put_string(out, info.etag);
  put_string(out, info.content_type);
  put_integer(out, static_cast<std::uint32_t>(info.metadata.size()));
  for (const auto& [name, value] : info.metadata) {
    put_string(out, name);
    put_string(out, value);
  }
  if (out.size() > kMaxBody) {
    return fail(Code::invalid_argument, "INVALID_METADATA", "the object's content type and metadata exceed 64 KiB");
  }
  const std::string_view body = out;
  const auto length = static_cast<std::uint32_t>(body.size());
  const std::uint32_t crc = crc32c(0, body);
  put_integer(out, length);
  put_integer(out, crc);
  out += kMagic;
  return out;
}

Result<ObjectInfo> read_footer(int fd, const std::string& key) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return fail(error_of(errno, "read the object", key));
  const auto file_size = static_cast<std::uint64_t>(status.st_size);
  // Nearly always the whole footer comes with the first read.
  std::string end(static_cast<std::size_t>(std::min<std::uint64_t>(file_size, 4096)), '\0');
  std::size_t got = 0;
  if (const int e = read_at(fd, end.data(), end.size(), file_size - end.size(), got))
    return fail(error_of(e, "read the object", key));
  if (got != end.size() || end.size() < kTail || !end.ends_with(kMagic))
    return fail(object_damaged(key, "its end is missing"));
  Reader tail(std::string_view(end).substr(end.size() - kTail));
  const auto length = tail.integer<std::uint32_t>();
  const auto crc = tail.integer<std::uint32_t>();
  if (length > kMaxBody || length + kTail > file_size) return fail(object_damaged(key, "its footer is not readable"));
  if (length + kTail > end.size()) {
    end.resize(length + kTail);
    if (const int e = read_at(fd, end.data(), end.size(), file_size - end.size(), got))
      return fail(error_of(e, "read the object", key));
    if (got != end.size()) return fail(object_damaged(key, "its end is missing"));
  }
  const std::string_view body = std::string_view(end).substr(end.size() - kTail - length, length);
  if (crc32c(0, body) != crc) return fail(object_damaged(key, "the checksum of its footer is wrong"));
  Reader reader(body);
  ObjectInfo info;
  info.key = key;
  info.size = reader.integer<std::uint64_t>();
  info.crc32c = reader.integer<std::uint32_t>();
  info.modified = WallTime(std::chrono::microseconds(reader.integer<std::int64_t>()));
  info.etag = reader.string();
  info.content_type = reader.string();
  for (auto left = reader.integer<std::uint32_t>(); left > 0 && reader.good(); --left) {
    std::string name = reader.string();
    info.metadata.emplace(std::move(name), reader.string());
  }
  if (!reader.good() || !reader.at_end()) return fail(object_damaged(key, "its footer is not readable"));
  if (info.size != file_size - length - kTail) return fail(object_damaged(key, "its size is not what was stored"));
  return info;
}

}  // namespace prism::filesystem
