// Spans of operations on backends: named for the engine that the file says ("s3.put_object"), with OpenTelemetry's
// attributes, and with the embedded twin that stands for the engine where there is one.
#pragma once

#include <memory>
#include <string>

#include "capabilities/object_store.h"
#include "telemetry/trace.h"

namespace prism {

// A backend as spans tell of it.
struct Engine {
  std::string system;   // its type in the file: "kafka", "s3", "postgres"
  std::string backend;  // its name in the file
  std::string twin;     // what stands for it ("sqlite", "filesystem"); empty: it is the engine itself
};

// A span of `<system>.<operation>`, a child of the context's. Empty where the request is not recorded.
trace::Span begin_span(const Context& context, const Engine& engine, std::string_view operation, trace::Kind kind);
// The same below the context that came with a record.
trace::Span resume_span(const TraceContext& parent, const Engine& engine, std::string_view operation, trace::Kind kind);
// A step of a database: `db.<step>`.
trace::Span begin_db_span(const Context& context, const Engine& engine, std::string_view step);

// As the decorated one. put and get are spans; that of a get lasts until its payload is read.
std::shared_ptr<ObjectStore> traced(std::shared_ptr<ObjectStore> store, Engine engine, std::string bucket);

}  // namespace prism
