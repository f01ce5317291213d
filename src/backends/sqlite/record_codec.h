// How a record is kept in its row: one blob, read back as slices of it without copying the body.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/types.h"
#include "capabilities/event_log.h"

namespace prism::sqlite {

// What counts towards TopicInfo::max_record_bytes.
std::size_t record_bytes(const Record& record) noexcept;
// Appends the record to `out`. Its time is left open: set_record_time.
void encode_record(const Record& record, std::string& out);
void set_record_time(char* encoded, WallTime time) noexcept;
// Of an encoded record, or of its first kRecordTimeBytes.
inline constexpr std::size_t kRecordTimeBytes = 9;
Result<WallTime> record_time(std::string_view encoded);
// `encoded` must stay valid as long as `owner` lives: body and header values refer to it. RECORD_CORRUPT.
Result<Record> decode_record(const std::shared_ptr<const void>& owner, std::string_view encoded);

// Stable for ever: which partition a key belongs to depends on it.
std::uint64_t hash_key(std::string_view key) noexcept;

}  // namespace prism::sqlite
