// JSON Schema (draft 2020-12) of what declarations accept: in every form that the parser takes, so that an editor
// completes and checks a file as Prism will read it. It accepts what Prism accepts; conditions between options, and the
// bounds of values that are written with a unit, are beyond it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "config/schema.h"

namespace prism::config {

using Json = nlohmann::ordered_json;

Json json_schema(const TypeInfo& type);
// The same with description, default, example, and whether it is deprecated or a secret.
Json json_schema(const FieldInfo& field);
// An object with these fields, their aliases and spellings, and nothing else.
Json json_schema(const SchemaInfo& info);

// A default or an example, which is YAML, as JSON: "1000" of an integer is a number, "1MB" of a size a string.
Json json_value(std::string_view yaml, const TypeInfo& type);

// Matches texts in which something is substituted when the file is read, ${env:NAME} or ${file:PATH}: they are accepted
// in the place of any value.
inline constexpr std::string_view kSubstitutionPattern = R"(\$\{(env|file):)";

// Matches `text` in any case, '-' and '_' being the same.
std::string any_case_pattern(std::string_view text);

}  // namespace prism::config
