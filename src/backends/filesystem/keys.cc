#include "backends/filesystem/keys.h"

#include <cstddef>
#include <cstdint>

namespace prism::filesystem {
namespace {

constexpr std::size_t kPart = 64;  // 192 bytes when all are encoded; an upload's file adds 39
constexpr std::string_view kGoesOn = "%~";
constexpr std::string_view kNothing = "%_";
constexpr std::string_view kObject = ".o";

std::string encode(std::string_view text) {
  static constexpr char digits[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size() + 8);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f || c == '%') {
      out += '%';
      out += digits[byte >> 4];
      out += digits[byte & 15];
    } else {
      out += c;
    }
  }
  return out;
}

std::string encode_folder(std::string_view text) {
  std::string name = encode(text);
  if (name.ends_with(kObject)) name.replace(name.size() - 2, 1, "%2E");
  return name;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<std::string> decode(std::string_view name) {
  std::string out;
  out.reserve(name.size());
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (name[i] != '%') {
      out += name[i];
      continue;
    }
    if (i + 2 >= name.size()) return std::nullopt;
    const int high = hex_value(name[i + 1]);
    const int low = hex_value(name[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

// Well-formed UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    std::size_t n = 0;
    std::uint32_t value = 0;
    std::uint32_t least = 0;
    if (lead < 0x80) {
      ++i;
      continue;
    }
    if ((lead & 0xe0) == 0xc0) {
      n = 1, value = lead & 0x1f, least = 0x80;
    } else if ((lead & 0xf0) == 0xe0) {
      n = 2, value = lead & 0x0f, least = 0x800;
    } else if ((lead & 0xf8) == 0xf0) {
      n = 3, value = lead & 0x07, least = 0x10000;
    } else {
      return false;
    }
    if (i + n >= text.size()) return false;
    for (std::size_t k = 1; k <= n; ++k) {
      const auto byte = static_cast<unsigned char>(text[i + k]);
      if ((byte & 0xc0) != 0x80) return false;
      value = value << 6 | (byte & 0x3fU);
    }
    if (value < least || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return false;
    i += n + 1;
  }
  return true;
}

std::unexpected<Error> invalid_key(std::string_view key, std::string_view why) {
  std::string shown(key.substr(0, 64));
  if (!is_utf8(shown)) shown = encode(shown);
  return fail(Code::invalid_argument, "INVALID_OBJECT_KEY", "the object key '" + shown + "' " + std::string(why),
              "keys are relative paths of 1 to 1024 bytes of UTF-8");
}

}  // namespace

Result<void> check_key(std::string_view key) {
  if (key.empty()) return invalid_key(key, "is empty");
  if (key.size() > 1024) return invalid_key(key, "has " + std::to_string(key.size()) + " bytes");
  if (key.find('\0') != std::string_view::npos) return invalid_key(key.substr(0, key.find('\0')), "contains NUL");
  if (!is_utf8(key)) return invalid_key(key, "is not UTF-8");
  for (std::size_t from = 0; from <= key.size();) {
    const std::size_t to = std::min(key.find('/', from), key.size());
    const std::string_view segment = key.substr(from, to - from);
    if (segment.empty()) return invalid_key(key, "has an empty segment");
    if (segment == "." || segment == "..") return invalid_key(key, "has a segment '" + std::string(segment) + "'");
    from = to + 1;
  }
  return {};
}

Result<void> check_bucket(std::string_view bucket) {
  bool good = !bucket.empty() && bucket.size() <= 128 && bucket.front() != '.';
  for (const char c : bucket) {
    good = good && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                    c == '-' || c == '_');
  }
  if (good) return {};
  return fail(Code::invalid_argument, "INVALID_BUCKET", "'" + encode(bucket.substr(0, 64)) + "' is not a bucket's name",
              "use 1 to 128 letters, digits, '-', '_' and '.', not '.' first");
}

ObjectPath object_path(std::string_view key) {
  ObjectPath path;
  const auto enter = [&](const std::string& folder) {
    if (!path.folder.empty()) path.folder += '/';
    path.folder += folder;
  };
  for (std::size_t from = 0; from <= key.size();) {
    const std::size_t to = std::min(key.find('/', from), key.size());
    std::string_view segment = key.substr(from, to - from);
    const bool cut = segment.size() >= kPart;
    for (; segment.size() >= kPart; segment.remove_prefix(kPart)) {
      enter(encode(segment.substr(0, kPart)) + std::string(kGoesOn));
    }
    const bool nothing = cut && segment.empty();
    if (to == key.size()) {
      path.stem = nothing ? std::string(kNothing) : encode(segment);
    } else {
      enter(nothing ? std::string(kNothing) : encode_folder(segment));
    }
    from = to + 1;
  }
  return path;
}

std::optional<Name> decode_name(std::string_view name) {
  Name out{Name::Kind::folder, {}};
  std::string_view encoded = name;
  if (name.ends_with(kObject)) {
    out.kind = Name::Kind::object;
    encoded.remove_suffix(kObject.size());
  } else if (name.ends_with(kGoesOn)) {
    out.kind = Name::Kind::part;
    encoded.remove_suffix(kGoesOn.size());
  }
  if (out.kind == Name::Kind::part || encoded != kNothing) {
    auto text = decode(encoded);
    // Only the one way in which a key is written leads to it.
    if (!text || text->empty() || text->find('/') != std::string::npos) return std::nullopt;
    if (encoded != (out.kind == Name::Kind::folder ? encode_folder(*text) : encode(*text))) return std::nullopt;
    if ((out.kind == Name::Kind::part) != (text->size() >= kPart) || text->size() > kPart) return std::nullopt;
    out.text = std::move(*text);
  }
  if (out.kind == Name::Kind::folder) out.text += '/';
  return out;
}

}  // namespace prism::filesystem
