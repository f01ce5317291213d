#include "backends/s3/xml.h"

#include <charconv>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <pugixml.hpp>
#include <sstream>

#include "backends/s3/checksum.h"

namespace prism::s3 {
namespace {

bool load(pugi::xml_document& document, std::string_view body) {
  return static_cast<bool>(
      document.load_buffer(body.data(), body.size(), pugi::parse_default | pugi::parse_ws_pcdata_single));
}

std::string text_of(const pugi::xml_node& node, const char* name) { return node.child(name).text().get(); }

// With encoding-type=url.
std::string decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    if (text[i] == '+') {
      out += ' ';
    } else if (text[i] == '%' && i + 2 < text.size() &&
               std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16).ptr == text.data() + i + 3) {
      out += static_cast<char>(value);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string written(const pugi::xml_document& document) {
  std::ostringstream out;
  document.save(out, "", pugi::format_raw | pugi::format_no_declaration);
  return std::move(out).str();
}

void put(pugi::xml_node node, const char* name, const std::string& value) {
  node.append_child(name).text().set(value.c_str());
}

constexpr const char* kNamespace = "http://s3.amazonaws.com/doc/2006-03-01/";

pugi::xml_node root(pugi::xml_document& document, const char* name) {
  pugi::xml_node node = document.append_child(name);
  node.append_attribute("xmlns").set_value(kNamespace);
  return node;
}

}  // namespace

std::string without_quotes(std::string_view etag) {
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  return std::string(etag);
}

std::optional<WallTime> parse_iso_time(std::string_view text) {
  const std::string copy(text);
  std::tm utc{};
  const char* rest = ::strptime(copy.c_str(), "%Y-%m-%dT%H:%M:%S", &utc);
  if (rest == nullptr) return std::nullopt;
  double fraction = 0;
  if (*rest == '.') fraction = std::strtod(rest, nullptr);
  const std::time_t seconds = ::timegm(&utc);
  return WallTime(std::chrono::seconds(seconds)) + std::chrono::microseconds(static_cast<std::int64_t>(fraction * 1e6));
}

void read_error(std::string_view body, std::string& code, std::string& message, std::string& region) {
  pugi::xml_document document;
  if (body.empty() || !load(document, body)) return;
  const pugi::xml_node error = document.child("Error");
  if (!error) return;
  code = text_of(error, "Code");
  message = text_of(error, "Message");
  region = text_of(error, "Region");
}

std::optional<ListPage> read_list(std::string_view body) {
  pugi::xml_document document;
  if (!load(document, body)) return std::nullopt;
  const pugi::xml_node result = document.child("ListBucketResult");
  if (!result) return std::nullopt;
  const bool encoded = text_of(result, "EncodingType") == "url";
  ListPage page;
  for (const pugi::xml_node entry : result.children("Contents")) {
    ObjectInfo info;
    info.key = encoded ? decode(text_of(entry, "Key")) : text_of(entry, "Key");
    info.etag = without_quotes(text_of(entry, "ETag"));
    info.size = entry.child("Size").text().as_ullong();
    if (const auto time = parse_iso_time(text_of(entry, "LastModified"))) info.modified = *time;
    page.objects.push_back(std::move(info));
  }
  if (text_of(result, "IsTruncated") == "true") page.continuation = text_of(result, "NextContinuationToken");
  return page;
}

std::optional<UploadPage> read_uploads(std::string_view body) {
  pugi::xml_document document;
  if (!load(document, body)) return std::nullopt;
  const pugi::xml_node result = document.child("ListMultipartUploadsResult");
  if (!result) return std::nullopt;
  const bool encoded = text_of(result, "EncodingType") == "url";
  UploadPage page;
  for (const pugi::xml_node entry : result.children("Upload")) {
    PendingUpload upload;
    upload.key = encoded ? decode(text_of(entry, "Key")) : text_of(entry, "Key");
    upload.id = text_of(entry, "UploadId");
    if (const auto time = parse_iso_time(text_of(entry, "Initiated"))) upload.begun = *time;
    page.uploads.push_back(std::move(upload));
  }
  page.more = text_of(result, "IsTruncated") == "true";
  page.next_key = encoded ? decode(text_of(result, "NextKeyMarker")) : text_of(result, "NextKeyMarker");
  page.next_id = text_of(result, "NextUploadIdMarker");
  return page;
}

std::optional<std::vector<NotDeleted>> read_deleted(std::string_view body) {
  pugi::xml_document document;
  if (!load(document, body)) return std::nullopt;
  const pugi::xml_node result = document.child("DeleteResult");
  if (!result) return std::nullopt;
  std::vector<NotDeleted> out;
  for (const pugi::xml_node error : result.children("Error")) {
    out.push_back({text_of(error, "Key"), text_of(error, "Code"), text_of(error, "Message")});
  }
  return out;
}

std::optional<std::string> read_upload_id(std::string_view body) {
  pugi::xml_document document;
  if (!load(document, body)) return std::nullopt;
  std::string id = text_of(document.child("InitiateMultipartUploadResult"), "UploadId");
  if (id.empty()) return std::nullopt;
  return id;
}

std::optional<std::string> read_completed(std::string_view body) {
  pugi::xml_document document;
  if (!load(document, body)) return std::nullopt;
  const pugi::xml_node result = document.child("CompleteMultipartUploadResult");
  if (!result) return std::nullopt;
  return without_quotes(text_of(result, "ETag"));
}

std::string write_parts(const std::vector<Part>& parts, bool with_checksums) {
  pugi::xml_document document;
  pugi::xml_node result = root(document, "CompleteMultipartUpload");
  for (std::size_t i = 0; i < parts.size(); ++i) {
    pugi::xml_node part = result.append_child("Part");
    if (with_checksums) put(part, "ChecksumCRC32C", checksum_text(parts[i].crc32c));
    put(part, "ETag", "\"" + parts[i].etag + "\"");
    put(part, "PartNumber", std::to_string(i + 1));
  }
  return written(document);
}

// pugixml escapes what XML lets be written. Control characters that it does not let be written at all are refused by
// servers: such keys are deleted one at a time.
std::string write_delete(const std::vector<std::string>& keys) {
  pugi::xml_document document;
  pugi::xml_node result = root(document, "Delete");
  put(result, "Quiet", "true");
  for (const std::string& key : keys) put(result.append_child("Object"), "Key", key);
  return written(document);
}

std::string write_location(std::string_view region) {
  pugi::xml_document document;
  put(root(document, "CreateBucketConfiguration"), "LocationConstraint", std::string(region));
  return written(document);
}

std::optional<std::string> with_rule(std::string_view others, const LifecycleRule& rule) {
  pugi::xml_document document;
  pugi::xml_node result;
  if (others.empty()) {
    result = root(document, "LifecycleConfiguration");
  } else {
    if (!load(document, others)) return std::nullopt;
    result = document.child("LifecycleConfiguration");
    if (!result) return std::nullopt;
    if (const pugi::xml_node old =
            result.find_child([&](const pugi::xml_node& node) { return node.child("ID").text().get() == rule.id; }))
      result.remove_child(old);
  }
  pugi::xml_node added = result.append_child("Rule");
  put(added, "ID", rule.id);
  put(added, "Status", "Enabled");
  put(added.append_child("Filter"), "Prefix", rule.prefix);
  if (rule.expire_after_days > 0) put(added.append_child("Expiration"), "Days", std::to_string(rule.expire_after_days));
  if (rule.abort_uploads_after_days > 0) {
    put(added.append_child("AbortIncompleteMultipartUpload"), "DaysAfterInitiation",
        std::to_string(rule.abort_uploads_after_days));
  }
  return written(document);
}

std::optional<std::vector<LifecycleRule>> read_lifecycle(std::string_view body) {
  pugi::xml_document document;
  if (!load(document, body)) return std::nullopt;
  const pugi::xml_node result = document.child("LifecycleConfiguration");
  if (!result) return std::nullopt;
  std::vector<LifecycleRule> out;
  for (const pugi::xml_node rule : result.children("Rule")) {
    LifecycleRule one;
    one.id = text_of(rule, "ID");
    one.prefix = rule.child("Filter") ? text_of(rule.child("Filter"), "Prefix") : text_of(rule, "Prefix");
    one.expire_after_days = rule.child("Expiration").child("Days").text().as_uint();
    one.abort_uploads_after_days =
        rule.child("AbortIncompleteMultipartUpload").child("DaysAfterInitiation").text().as_uint();
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace prism::s3
