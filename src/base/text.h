// Texts that others have written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace prism {

// Length in bytes of the well-formed UTF-8 sequence (RFC 3629) that `text` begins with; 0: it begins with none.
std::size_t utf8_sequence(std::string_view text) noexcept;

// The character of a sequence that utf8_sequence() takes as a whole.
char32_t utf8_decode(std::string_view sequence) noexcept;

// Does this character change how the text around it looks, and is not seen itself? Control characters, marks of the
// direction of writing (U+202E turns what follows around), characters without width, separators of lines.
bool is_unseen(char32_t character) noexcept;

// `text` on one line: a space for a tab or line break, "\u202E" for what is_unseen(), "?" for what is not UTF-8.
std::string made_visible(std::string_view text);

inline constexpr std::size_t kShownBytes = 60;

// A name as an error may repeat it, whatever a client has sent: at most kShownBytes of it, ending between two
// characters, then "..." where there was more; what is_unseen() and bytes that are not UTF-8 are shown as "?".
std::string shown(std::string_view name);

// "1 row", "3 rows".
std::string counted(std::uint64_t count, std::string_view noun);

}  // namespace prism
