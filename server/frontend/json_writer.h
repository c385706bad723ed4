// JSON, written to the end of a string.
#pragma once

#include <string>
#include <string_view>

namespace hearth {

// In double quotes, with what JSON wants escaped. Bytes that are not UTF-8 become U+FFFD, one each.
void AppendJsonString(std::string_view text, std::string& out);

// As few digits as read back to the same number. What JSON has no number for: NaN, Infinity, -Infinity, as Python and
// most parsers read them.
void AppendJsonNumber(float value, std::string& out);
void AppendJsonNumber(double value, std::string& out);

void AppendJsonInt(long long value, std::string& out);
void AppendJsonUInt(unsigned long long value, std::string& out);

}  // namespace hearth
