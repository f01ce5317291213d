// Texts that others have written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace prism {

// Length in bytes of the well-formed UTF-8 sequence (RFC 3629) that `text` begins with; 0: it begins with none.
std::size_t utf8_sequence(std::string_view text) noexcept;

inline constexpr std::size_t kShownBytes = 60;

// A name as an error may repeat it, whatever a client has sent: at most kShownBytes of it, ending between two
// characters, then "..." where there was more; control characters and bytes that are not UTF-8 are shown as "?".
std::string shown(std::string_view name);

// "1 row", "3 rows".
std::string counted(std::uint64_t count, std::string_view noun);

}  // namespace prism
