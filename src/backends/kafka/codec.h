// How what Prism keeps looks in Kafka: names, records, a group's progress.
#pragma once

#include <librdkafka/rdkafka.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "capabilities/delivery_window.h"
#include "capabilities/event_log.h"

namespace prism::kafka {

// --- names ---

// Kafka takes letters, digits, '.', '_' and '-'; other characters, and a '-' before an 'x', become "-x2f-" (their bytes
// in hex).
std::string encode_topic(std::string_view name);
std::string decode_topic(std::string_view name);
inline constexpr std::size_t kMaxKafkaTopicBytes = 249;

// Groups in which Prism keeps what it needs to know; no consumers. See README.md.
inline constexpr std::string_view kInternalPrefix = "__prism";

// --- records ---

// The key is Kafka's key, the body its value, headers are headers. A record with an id begins with CloudEvents'
// headers of Kafka's binary mode (ce_specversion, ce_id, ce_source, ce_type): those that it has not itself.
struct HeadersDeleter {
  void operator()(rd_kafka_headers_t* headers) const noexcept { rd_kafka_headers_destroy(headers); }
};
using HeadersPtr = std::unique_ptr<rd_kafka_headers_t, HeadersDeleter>;
HeadersPtr encode_headers(const Record& record);
// All of it copied: nothing of the message is referred to.
Record decode_record(const rd_kafka_message_t& message);
// What counts towards TopicInfo::max_record_bytes.
std::size_t record_bytes(const Record& record) noexcept;
// At least what the record takes in a batch of its own, uncompressed.
std::size_t wire_bytes(const Record& record) noexcept;
// Of max.message.bytes, for what is around a record.
inline constexpr std::size_t kRecordOverhead = 1'024;

// --- progress ---

// Beside a group's offset in a partition (all below it is acknowledged) stands, in the commit's metadata, what is
// acknowledged above it, what has been delivered and how often. Brokers take 4096 bytes of it.
struct Committed {
  Progress progress;
  std::optional<Id128> seek;  // the last move of the group that was obeyed here
};
inline constexpr std::size_t kMetadataBytes = 4'096;
// So many records between the offset and the next to be read always fit; of attempts, those of the first records.
inline constexpr std::size_t kWindowRecords = 16'384;
std::string encode_progress(const Committed& committed);
// What others have written, or nothing, is an offset alone.
Committed decode_progress(std::uint64_t offset, std::string_view metadata);

}  // namespace prism::kafka
