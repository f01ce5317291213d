#include "backends/sqlite/record_codec.h"

#include "base/varint.h"

namespace prism::sqlite {
namespace {

// version (1 byte), time (8 bytes, microseconds, little endian), then numbers: length of id, of key, count of headers;
// for each header: length and text of its name, length and bytes of its value; id; key; the body is the rest.
constexpr char kVersion = 1;

std::unexpected<Error> corrupt() {
  return fail(Code::data_loss, "RECORD_CORRUPT", "a record of the log cannot be decoded",
              "restore the file from a backup");
}

bool take(std::string_view& in, std::uint64_t n, std::string_view& out) noexcept {
  if (n > in.size()) return false;
  out = in.substr(0, n);
  in.remove_prefix(n);
  return true;
}

}  // namespace

std::size_t record_bytes(const Record& record) noexcept {
  std::size_t n = record.id.size() + record.key.size() + record.body.size();
  for (const auto& [name, value] : record.headers) n += name.size() + value.size();
  return n;
}

void encode_record(const Record& record, std::string& out) {
  out += kVersion;
  out.append(8, '\0');
  put_varint(out, record.id.size());
  put_varint(out, record.key.size());
  put_varint(out, record.headers.size());
  for (const auto& [name, value] : record.headers) {
    put_varint(out, name.size());
    out += name;
    put_varint(out, value.size());
    out += value.view();
  }
  out += record.id;
  out += record.key;
  out += record.body.view();
}

void set_record_time(char* encoded, WallTime time) noexcept {
  const auto us = static_cast<std::uint64_t>(time.time_since_epoch().count());
  for (unsigned i = 0; i < 8; ++i) encoded[1 + i] = static_cast<char>(us >> (8 * i) & 0xff);
}

Result<WallTime> record_time(std::string_view encoded) {
  if (encoded.size() < kRecordTimeBytes || encoded.front() != kVersion) return corrupt();
  std::uint64_t us = 0;
  for (unsigned i = 0; i < 8; ++i)
    us |= static_cast<std::uint64_t>(static_cast<unsigned char>(encoded[1 + i])) << (8 * i);
  return WallTime(std::chrono::microseconds(static_cast<std::int64_t>(us)));
}

Result<Record> decode_record(const std::shared_ptr<const void>& owner, std::string_view encoded) {
  Record record;
  PRISM_TRY(record.time, record_time(encoded));
  std::string_view in = encoded.substr(kRecordTimeBytes);
  const auto id_bytes = take_varint(in);
  const auto key_bytes = take_varint(in);
  const auto headers = take_varint(in);
  if (!id_bytes || !key_bytes || !headers || *headers > in.size()) return corrupt();
  record.headers.reserve(*headers);
  std::string_view part;
  for (std::uint64_t i = 0; i < *headers; ++i) {
    const auto name_bytes = take_varint(in);
    if (!name_bytes || !take(in, *name_bytes, part)) return corrupt();
    std::string name(part);
    const auto value_bytes = take_varint(in);
    if (!value_bytes || !take(in, *value_bytes, part)) return corrupt();
    record.headers.emplace_back(std::move(name), Bytes(owner, part));
  }
  if (!take(in, *id_bytes, part)) return corrupt();
  record.id = part;
  if (!take(in, *key_bytes, part)) return corrupt();
  record.key = part;
  record.body = Bytes(owner, in);
  return record;
}

std::uint64_t hash_key(std::string_view key) noexcept {
  std::uint64_t h = 0xcbf29ce484222325;  // FNV-1a, 64 bits
  for (const char c : key) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  h ^= h >> 33;  // the finaliser of MurmurHash3: FNV's low bits alone are poor
  h *= 0xff51afd7ed558ccd;
  h ^= h >> 33;
  h *= 0xc4ceb9fe1a85ec53;
  h ^= h >> 33;
  return h;
}

}  // namespace prism::sqlite
