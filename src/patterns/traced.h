// Spans of the patterns of a chain (RFC-014, Distributed Tracing; of the requirements).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "patterns/pattern.h"
#include "telemetry/trace.h"

namespace prism {

// "claim-check" and "process_publish" give "ClaimCheckPattern.process_publish".
std::string pattern_span_name(std::string_view pattern, std::string_view method);

// A pattern's own work within a request. Empty where the request is not recorded, or without its patterns.
trace::Span begin_pattern_span(const Context& context, std::string_view pattern, std::string_view method);

// The span `<pattern>.process_publish` around a whole chain, for a pattern whose work encloses that of those outside of
// it: a claim check before an outbox uploads for the row that the outbox is going to write.
std::unique_ptr<Publisher> make_enclosing(std::unique_ptr<Publisher> chain, std::string_view pattern);

}  // namespace prism
