// Secrets where they do not belong: a password in an address, a token in a query. Whatever of a file is shown goes
// through here (Node::display, quotable, Diagnostics); values of options that are secrets are never shown at all.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace prism::config {

inline constexpr std::string_view kRedacted = "[redacted]";

struct Stretch {
  std::size_t begin = 0, end = 0;  // bytes
};

// Where in a value secrets stand, in order: user and password of an address (scheme://user:password@host,
// user:password@host), what is given to a name that names_a_secret() (?token=x, password=x, "authorization: x"), the
// credentials of "Bearer x" and "Basic x", private keys. What is nothing but ${env:X} and ${file:X} is none. Rather too
// much than too little.
std::vector<Stretch> secrets_in(std::string_view value);

// "password", "sasl.client_secret", "X-Api-Key"
bool names_a_secret(std::string_view option);

// Nothing but ${...}, at least one.
bool is_only_substitutions(std::string_view text);

// A value with kRedacted for each of its secrets_in().
std::string redacted(std::string_view value);
// The same for a sentence, word by word: for texts that quote something, by whomever they were written.
std::string redacted_words(std::string_view text);

// What a message may repeat of a text of the file: redacted, on one line, at most `characters` of it.
std::string quotable(std::string_view text, std::size_t characters = 60);

}  // namespace prism::config
