// The documents of S3's protocol, read and written.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "capabilities/object_store.h"

namespace prism::s3 {

// Leaves alone what the document does not say, and everything where it is no error.
void read_error(std::string_view body, std::string& code, std::string& message, std::string& region);

// Of all the following nullopt: the document is not what it should be.
struct ListPage {
  std::vector<ObjectInfo> objects;
  std::string continuation;  // empty: that was all
};
std::optional<ListPage> read_list(std::string_view body);

struct PendingUpload {
  std::string key, id;
  WallTime begun{};
};
struct UploadPage {
  std::vector<PendingUpload> uploads;
  bool more = false;
  std::string next_key, next_id;
};
std::optional<UploadPage> read_uploads(std::string_view body);

struct NotDeleted {
  std::string key, code, message;
};
std::optional<std::vector<NotDeleted>> read_deleted(std::string_view body);

std::optional<std::string> read_upload_id(std::string_view body);
std::optional<std::string> read_completed(std::string_view body);  // the etag

struct Part {
  std::string etag;
  std::uint32_t crc32c = 0;
};
std::string write_parts(const std::vector<Part>& parts, bool with_checksums);
std::string write_delete(const std::vector<std::string>& keys);
std::string write_location(std::string_view region);

// A rule of the bucket's life cycle.
struct LifecycleRule {
  std::string id;
  std::string prefix;
  std::uint32_t expire_after_days = 0;         // 0: objects are kept
  std::uint32_t abort_uploads_after_days = 0;  // 0: unfinished uploads are kept
  friend bool operator==(const LifecycleRule&, const LifecycleRule&) = default;
};
// The rule as an element that stands beside `others`, a document that the server gave (empty: none); one of the same id
// is replaced.
std::optional<std::string> with_rule(std::string_view others, const LifecycleRule& rule);
std::optional<std::vector<LifecycleRule>> read_lifecycle(std::string_view body);

std::string without_quotes(std::string_view etag);
std::optional<WallTime> parse_iso_time(std::string_view text);  // "2009-10-12T17:50:30.000Z"

}  // namespace prism::s3
