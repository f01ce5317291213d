#include "backends/kafka/codec.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "base/base64.h"
#include "base/varint.h"

namespace prism::kafka {
namespace {

bool is_plain(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}
int hex_value(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}
// The byte that "-x2f-" at the front stands for; -1: there is none.
int escaped(std::string_view text) noexcept {
  if (text.size() < 5 || text[0] != '-' || text[1] != 'x' || text[4] != '-') return -1;
  const int high = hex_value(text[2]);
  const int low = hex_value(text[3]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

constexpr std::string_view kSpecVersion = "1.0";
constexpr std::string_view kSource = "prism";
constexpr std::string_view kType = "prism.message";

void add(rd_kafka_headers_t* headers, std::string_view name, std::string_view value) {
  rd_kafka_header_add(headers, name.empty() ? "" : name.data(), static_cast<ssize_t>(name.size()),
                      value.data() == nullptr ? "" : value.data(), static_cast<ssize_t>(value.size()));
}
bool has(const Headers& headers, std::string_view name) {
  return std::any_of(headers.begin(), headers.end(), [&](const auto& h) { return h.first == name; });
}

constexpr std::string_view kProgressMark = "p1.";
enum class Ranges : std::uint8_t { none, list, bitmap };

}  // namespace

std::string encode_topic(std::string_view name) {
  static constexpr std::string_view kHex = "0123456789abcdef";
  std::string out;
  const bool dots = name == "." || name == "..";  // Kafka takes neither
  for (std::size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    if (is_plain(c) && !dots && !name.substr(i).starts_with("-x")) {
      out += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out += "-x";
    out += kHex[byte >> 4];
    out += kHex[byte & 15];
    out += '-';
  }
  return out;
}

std::string decode_topic(std::string_view name) {
  std::string out;
  while (!name.empty()) {
    if (const int byte = escaped(name); byte >= 0) {
      out += static_cast<char>(byte);
      name.remove_prefix(5);
    } else {
      out += name.front();
      name.remove_prefix(1);
    }
  }
  return out;
}

HeadersPtr encode_headers(const Record& record) {
  HeadersPtr out(rd_kafka_headers_new(record.headers.size() + 4));
  if (!record.id.empty()) {
    add(out.get(), "ce_specversion", kSpecVersion);
    add(out.get(), "ce_id", record.id);
    if (!has(record.headers, "ce_source")) add(out.get(), "ce_source", kSource);
    if (!has(record.headers, "ce_type")) add(out.get(), "ce_type", kType);
  }
  for (const auto& [name, value] : record.headers) add(out.get(), name, value.view());
  return out;
}

Record decode_record(const rd_kafka_message_t& message) {
  Record record;
  if (message.key != nullptr) record.key.assign(static_cast<const char*>(message.key), message.key_len);
  rd_kafka_timestamp_type_t kind = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
  const std::int64_t ms = rd_kafka_message_timestamp(&message, &kind);
  if (kind != RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && ms > 0) record.time = WallTime(std::chrono::milliseconds(ms));

  rd_kafka_headers_t* headers = nullptr;
  rd_kafka_message_headers(&message, &headers);  // none: nothing is set
  struct View {
    std::string_view name, value;
  };
  std::vector<View> views;
  std::size_t bytes = message.len;
  if (headers != nullptr) {
    const char* name = nullptr;
    const void* value = nullptr;
    std::size_t size = 0;
    for (std::size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR;
         ++i) {
      views.push_back({name, {static_cast<const char*>(value), value == nullptr ? 0 : size}});
      bytes += views.back().value.size();
    }
  }
  std::size_t first = 0;
  if (views.size() >= 2 && views[0].name == "ce_specversion" && views[0].value == kSpecVersion &&
      views[1].name == "ce_id") {
    record.id = views[1].value;
    first = 2;
    if (first < views.size() && views[first].name == "ce_source" && views[first].value == kSource) ++first;
    if (first < views.size() && views[first].name == "ce_type" && views[first].value == kType) ++first;
  } else {
    for (const View& view : views) {
      if (view.name != "ce_id") continue;
      record.id = view.value;
      break;
    }
  }
  // One piece of memory for all of it.
  auto memory = std::make_shared<std::string>();
  memory->reserve(bytes);
  record.headers.reserve(views.size() - first);
  const auto keep = [&](std::string_view part) {
    const std::size_t at = memory->size();
    memory->append(part);
    return Bytes(memory, std::string_view(*memory).substr(at, part.size()));
  };
  for (; first < views.size(); ++first)
    record.headers.emplace_back(std::string(views[first].name), keep(views[first].value));
  if (message.payload != nullptr) record.body = keep({static_cast<const char*>(message.payload), message.len});
  return record;
}

std::size_t record_bytes(const Record& record) noexcept {
  std::size_t n = record.id.size() + record.key.size() + record.body.size();
  for (const auto& [name, value] : record.headers) n += name.size() + value.size();
  return n;
}

std::size_t wire_bytes(const Record& record) noexcept {
  constexpr std::size_t kAroundRecord =
      61 + 40 + 80;  // the batch's head, lengths of up to 5 bytes, CloudEvents' headers
  return record_bytes(record) + kAroundRecord + 10 * record.headers.size();
}

std::string encode_progress(const Committed& committed) {
  const Progress& p = committed.progress;
  const std::uint64_t below = p.acked.below();
  const std::uint64_t delivered = std::max(p.delivered_below, below);
  std::string ranges = p.acked.encode_ranges();
  std::string attempts = p.encode_attempts();
  if (!committed.seek && ranges.empty() && attempts.empty() && delivered == below) return {};

  std::string out;
  out += committed.seek ? '\1' : '\0';
  if (committed.seek) out.append(reinterpret_cast<const char*>(committed.seek->data()), committed.seek->size());
  put_varint(out, delivered - below);
  auto kind = ranges.empty() ? Ranges::none : Ranges::list;
  if (const std::size_t bits = (delivered - below + 7) / 8; ranges.size() > bits) {
    kind = Ranges::bitmap;
    ranges.assign(bits, '\0');
    for (std::uint64_t o = below; o < delivered; ++o) {
      if (!p.acked.contains(o)) continue;
      char& byte = ranges[(o - below) / 8];
      byte = static_cast<char>(static_cast<unsigned char>(byte) | 1U << ((o - below) % 8));
    }
  }
  out += static_cast<char>(kind);
  put_varint(out, ranges.size());
  out += ranges;
  // Pairs of numbers, those of the first records first: as many as there is room for.
  const std::size_t room = (kMetadataBytes - kProgressMark.size()) / 4 * 3 - out.size();
  std::string_view rest = attempts;
  std::size_t taken = 0;
  while (!rest.empty()) {
    if (!take_varint(rest) || !take_varint(rest) || attempts.size() - rest.size() > room) break;
    taken = attempts.size() - rest.size();
  }
  out.append(attempts, 0, taken);
  return std::string(kProgressMark) + base64url_encode(out);
}

Committed decode_progress(std::uint64_t offset, std::string_view metadata) {
  Committed plain;
  plain.progress.acked = AckSet(offset);
  plain.progress.delivered_below = offset;
  if (!metadata.starts_with(kProgressMark)) return plain;
  const auto bytes = base64url_decode(metadata.substr(kProgressMark.size()));
  if (!bytes || bytes->empty()) return plain;
  std::string_view in = *bytes;
  Committed out;
  const bool moved = in.front() != 0;
  in.remove_prefix(1);
  if (moved) {
    Id128 id;
    if (in.size() < id.size()) return plain;
    std::memcpy(id.data(), in.data(), id.size());
    in.remove_prefix(id.size());
    plain.seek = out.seek = id;
  }
  const auto delivered = take_varint(in);
  if (!delivered || *delivered > 1U << 30 || in.empty()) return plain;
  const auto kind = static_cast<Ranges>(in.front());
  in.remove_prefix(1);
  const auto size = take_varint(in);
  if (!size || *size > in.size()) return plain;
  const std::string_view ranges = in.substr(0, *size);
  in.remove_prefix(*size);
  auto progress = Progress::decode(offset, kind == Ranges::list ? ranges : std::string_view(), offset + *delivered, in);
  if (!progress) return plain;
  if (kind == Ranges::bitmap) {
    for (std::uint64_t o = 0; o < ranges.size() * 8; ++o) {
      if ((static_cast<unsigned char>(ranges[o / 8]) >> (o % 8) & 1) != 0) progress->acked.add(offset + o);
    }
  }
  out.progress = std::move(*progress);
  return out;
}

}  // namespace prism::kafka
